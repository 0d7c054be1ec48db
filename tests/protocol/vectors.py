"""Messages and their frames as RivetKit 2.3.19 writes them. CBOR and BARE are hexadecimal; spaces are for reading."""

from trivet.errors import ActorRef
from trivet.protocol.messages import (
    ActionRequest,
    ActionResponse,
    Error,
    Event,
    Init,
    SubscriptionRequest,
    ToClient,
    ToServer,
)

ACTION_ERROR = Error("user", "my_code", "bad", {"a": 1}, 300, ActorRef("act1", 1, "general"))
CONNECTION_ERROR = Error("user", "rejected", "no")

# message, JSON, CBOR, BARE
TO_CLIENT: list[tuple[ToClient, str, str, str]] = [
    (
        Init("act1", "c-1"),
        '{"body":{"tag":"Init","val":{"actorId":"act1","connectionId":"c-1"}}}',
        "a164626f6479a26374616764496e69746376616ca2676163746f72496464616374316c636f6e6e656374696f6e496463632d31",
        "0400 00 0461637431 03632d31",
    ),
    (
        ActionResponse(300, "ok"),
        '{"body":{"tag":"ActionResponse","val":{"id":["$BigInt","300"],"output":"ok"}}}',
        "a164626f6479a2637461676e416374696f6e526573706f6e73656376616ca2626964 1b000000000000012c666f7574707574626f6b",
        "0400 02 ac02 03 626f6b",
    ),
    (
        Event("newMessage", [{"a": 1}]),
        '{"body":{"tag":"Event","val":{"name":"newMessage","args":[{"a":1}]}}}',
        "a164626f6479a263746167654576656e746376616ca2646e616d656a6e65774d657373616765646172677381a1616101",
        "0400 03 0a6e65774d657373616765 05 81a1616101",
    ),
    (
        ACTION_ERROR,
        (
            '{"body":{"tag":"Error","val":{"group":"user","code":"my_code","message":"bad","metadata":{"a":1},'
            '"actionId":["$BigInt","300"],"actor":{"actorId":"act1","generation":1,"key":"general"}}}}'
        ),
        (
            "a164626f6479a263746167654572726f726376616ca66567726f7570647573657264636f6465676d795f636f6465676d65737361676563"
            "626164686d65746164617461a1616101656163746f72a3676163746f72496464616374316a67656e65726174696f6e01636b6579676765"
            "6e6572616c68616374696f6e49641b000000000000012c"
        ),
        "0400 01 0475736572 076d795f636f6465 03626164 01 04a1616101 01 ac02 01 0461637431 01 01 0767656e6572616c",
    ),
    (
        CONNECTION_ERROR,
        '{"body":{"tag":"Error","val":{"group":"user","code":"rejected","message":"no","actionId":null}}}',
        (
            "a164626f6479a263746167654572726f726376616ca46567726f7570647573657264636f64656872656a6563746564676d657373616765"
            "626e6f68616374696f6e4964f6"
        ),
        "0400 01 0475736572 0872656a6563746564 026e6f 00 00 00",
    ),
]

TO_SERVER: list[tuple[ToServer, str, str, str]] = [
    (
        ActionRequest(300, "sendMessage", ["bob", "hi"]),
        '{"body":{"tag":"ActionRequest","val":{"id":["$BigInt","300"],"name":"sendMessage","args":["bob","hi"]}}}',
        (
            "b9000164626f6479b90002637461676d416374696f6e526571756573746376616cb90003"
            "6269641b000000000000012c646e616d656b73656e644d65737361676564617267738263626f62626869"
        ),
        "0400 00 ac02 0b73656e644d657373616765 08 8263626f62626869",
    ),
    (
        SubscriptionRequest("newMessage", True),
        '{"body":{"tag":"SubscriptionRequest","val":{"eventName":"newMessage","subscribe":true}}}',
        (
            "b9000164626f6479b900026374616773537562736372697074696f6e526571756573746376616cb90002696576656e744e616d656a6e6577"
            "4d65737361676569737562736372696265f5"
        ),
        "0400 01 0a6e65774d657373616765 01",
    ),
]

# encoding, body
ACTION_REQUESTS = [
    ("json", b'{"args":["bob","hi"]}'),
    ("cbor", bytes.fromhex("b9000164617267738263626f62626869")),
    ("bare", bytes.fromhex("0400 08 8263626f62626869")),
]
ACTION_RESPONSES = [
    ("json", b'{"output":"ok"}'),
    ("cbor", bytes.fromhex("a1666f7574707574626f6b")),
    ("bare", bytes.fromhex("0400 03 626f6b")),
]
HTTP_ERRORS = [
    (
        "json",
        (
            b'{"group":"user","code":"my_code","message":"bad","metadata":{"a":1},'
            b'"actor":{"actorId":"act1","generation":1,"key":"general"}}'
        ),
    ),
    (
        "cbor",
        bytes.fromhex(
            "a56567726f7570647573657264636f6465676d795f636f6465676d65737361676563626164686d65746164617461a1616101"
            "656163746f72a3676163746f72496464616374316a67656e65726174696f6e01636b65796767656e6572616c"
        ),
    ),
    (
        "bare",
        bytes.fromhex("0400 0475736572 076d795f636f6465 03626164 01 04a1616101 01 0461637431 01 01 0767656e6572616c"),
    ),
]
