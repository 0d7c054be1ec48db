// A program that uses the actors as they are meant to be used.
import { createClient } from "rivetkit/client";
import type { Circle, Color, Everything, EverythingInput, Gallery, Node, registry } from "./registry";

/** Whether two types are the same to the compiler. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};

const client = createClient<typeof registry>("http://127.0.0.1:6420");

const handle = client.gallery.getOrCreate(["front"], {
  params: { playerId: "ann" } satisfies Gallery["params"],
  createWithInput: { since: new Date(), color_name: "red" } satisfies Gallery["input"],
});
await client.gallery.create("back", { input: { since: new Date() } satisfies Gallery["input"] });

const hung = await handle.hang({ label: "a", children: [{ label: "b" }] }, [1, 2]);
same<typeof hung, Node>(true);
const area: number = hung.children[0].area;
await handle.hang({ label: "a" }, [1, 2, 3], "dark-green");
await handle.hang(hung, [area, 0]);

const circle: Circle = { radius: 1, kind: "circle" };
same<number, Awaited<ReturnType<typeof handle.area>>>(true);
await handle.area(circle);
await handle.area({ side: 1 });

const found = await handle.find({ since: new Date() }, undefined, "red", "wall");
same<typeof found, { [key: string]: Node } | null>(true);

same<void, Awaited<ReturnType<typeof handle.walls.paint>>>(true);
await handle.walls.paint("red");
const content: number = (await handle.walls.inner.count()).content;
const [numbers, words] = await handle.boxes();
same<typeof numbers.content, number>(true);
same<typeof words.content, string>(true);
const tree = await handle.prune({ deep: [1, { deeper: content }] });
if (typeof tree === "number") tree.toFixed();
const free: unknown = await handle.free(new Map());

declare const sent: EverythingInput;
const whole: Everything = await handle.everything(sent);
const created: number = whole.createdAt.getTime() + whole.lasts;
const bytes: Uint8Array = whole.data;
const tags: Set<string> = whole.tags;
const red: number | undefined = whole.byColor.red;
const text: string = whole.pair[0] + whole.day + whole.price.trim() + whole.id + whole.scores["1"].toFixed();
same<typeof whole.kind, "a" | 1 | true | null>(true);
same<typeof whole.maybe, number | null>(true);
same<typeof whole.absent, number | undefined>(true);
same<typeof whole.anything, unknown>(true);

const room = handle.connect({ playerId: "ann", role: "owner" } satisfies Gallery["params"]);
const unsubscribe: () => void = room.on("hung", (node) => same<typeof node, Node>(true));
room.on("moved", (label, [x, y, zIndex]) => label.trim() + (x + y + zIndex).toFixed());
room.on("listed", (list) => same<typeof list, number[]>(true));
room.on("trivet.dropped", ({ event, count }) => `${count} of ${event}`);
room.once("emptied", () => unsubscribe());
const color: Color = "red";
await room.walls.paint(color);
await room.dispose();

const odd = client["words-of-js"].get("x");
const year: number = (await odd.delete(1, "this", { "not an identifier": 1 })).year;
await odd["to-day"]();
void [created, bytes, tags, red, text, free, year];
