"""aiomqtt, told what to do line by line and telling what it saw; the same lines as paho_client.py has."""

import asyncio
import json
import os
import sys

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def tell(event, **fields):
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def properties_of(kind, given):
    properties = Properties(kind)
    for name, value in given.items():
        if name == "UserProperty":
            value = [tuple(pair) for pair in value]
        elif name == "CorrelationData":
            value = value.encode()
        setattr(properties, name, value)
    return properties


def shown(message):
    fields = {}
    for name in ("ResponseTopic", "ContentType", "UserProperty", "CorrelationData"):
        value = getattr(message.properties, name, None)
        if value is not None:
            fields[name] = value.decode() if isinstance(value, bytes) else value
    return fields


async def hear(client):
    async for message in client.messages:
        tell(
            "message",
            topic=str(message.topic),
            payload=message.payload.decode(),
            qos=message.qos,
            retain=bool(message.retain),
            properties=shown(message),
        )


async def main():
    how = json.loads(sys.stdin.readline())
    is_5 = how["version"] == 5
    options = {"identifier": how["client_id"], "port": how["port"]}
    options["protocol"] = aiomqtt.ProtocolVersion.V5 if is_5 else aiomqtt.ProtocolVersion.V311
    options["username"], options["password"] = how["user"], how["password"]
    options["transport"] = "websockets" if how.get("websockets") else "tcp"
    if how.get("websockets"):
        options["websocket_path"] = "/mqtt"
    if "ca" in how:
        options["tls_params"] = aiomqtt.TLSParameters(ca_certs=how["ca"])
    if "will" in how:
        will = how["will"]
        options["will"] = aiomqtt.Will(will["topic"], will["payload"], will["qos"], will["retain"])
    if is_5:
        options["clean_start"] = how["clean"]
        expiry = {} if how["clean"] else {"SessionExpiryInterval": 600}
        options["properties"] = properties_of(PacketTypes.CONNECT, expiry)
    else:
        options["clean_session"] = how["clean"]
    client = aiomqtt.Client("localhost", **options)
    await client.__aenter__()
    # The library does not tell whether the session was present.
    tell("connected", session_present=None, code=0)
    hearing = asyncio.create_task(hear(client))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while line := await lines.readline():
        command = json.loads(line)
        if command["do"] == "subscribe":
            codes = await client.subscribe(command["filter"], command["qos"])
            tell("subscribed", codes=[code if isinstance(code, int) else code.value for code in codes])
        elif command["do"] == "publish":
            more = {}
            if command.get("properties"):
                more["properties"] = properties_of(PacketTypes.PUBLISH, command["properties"])
            await client.publish(
                command["topic"], command["payload"], command["qos"], command["retain"], **more
            )
            tell("published")
        elif command["do"] == "die":
            os._exit(0)
    hearing.cancel()
    await client.__aexit__(None, None, None)


asyncio.run(main())
