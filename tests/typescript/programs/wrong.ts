// Every line that ends in a comment is a mistake.
import { createClient } from "rivetkit/client";
import type { Everything, Gallery, registry } from "./registry";

const client = createClient<typeof registry>("http://127.0.0.1:6420");
const handle = client.gallery.get("front");

client.galery.get("front"); // no such actor
await handle.hung({ label: "a" }, [1, 2]); // no such action
await handle.hang({ label: "a" }); // an argument is missing
await handle.hang({ label: "a" }, [1]); // too short a NamedTuple
await handle.hang({ label: 1 }, [1, 2]); // a field of another type
await handle.hang({ label: "a", children: [{}] }, [1, 2]); // a field is missing, further inside
await handle.hang({ label: "a", area: 1 }, [1, 2]); // a field that the server computes
await handle.hang({ label: "a" }, [1, 2], "blue"); // not a member of the enum
await handle.hang({ label: "a" }, [1, 2], "red", 1); // too many arguments
await handle.area({ side: 1, kind: "circle" }); // an arm with the tag of another
await handle.find({ since: "2026-02-28" }); // a text for a Date
await handle.find({ since: new Date(), colorName: "red" }); // a TypedDict keeps its keys
await handle.find({ since: new Date() }, 1, 2); // the rest are texts
await handle.walls.strip(); // no such nested action
await handle.walls(); // a group is no action
(await handle.walls.paint("red")).length; // nothing comes back
(await handle.free(1)).length; // anything may come back
(await handle.find({ since: new Date() }))["a"].label; // it may be null
(await handle.everything({} as Everything)).created_at; // names are camelCase
await handle.send("queue", 1); // there are no queues

const room = handle.connect({ role: "owner" } satisfies Gallery["params"]); // a parameter is missing
room.on("hungs", () => {}); // no such event
room.on("hung", (node) => node.name); // no such field
room.on("hung", (node: string) => node); // another payload
room.on("moved", (label, point, more) => more); // more than comes
room.once("emptied", (what) => what); // nothing comes
({ since: 1 }) satisfies Gallery["input"]; // another input
