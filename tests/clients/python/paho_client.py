"""paho-mqtt, 1.6 or 2, told what to do line by line and telling what it saw, line by line; see plain.rs of the tests.

The first line on stdin says how it connects, each further line is a command. One line is one JSON object.
"""

import json
import socket
import sys

import paho.mqtt.client as mqtt
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
    properties = getattr(message, "properties", None)
    fields = {}
    for name in ("ResponseTopic", "ContentType", "UserProperty", "CorrelationData"):
        value = getattr(properties, name, None)
        if value is not None:
            fields[name] = value.decode() if isinstance(value, bytes) else value
    return fields


def make(how):
    is_5 = how["version"] == 5
    options = {"client_id": how["client_id"], "protocol": mqtt.MQTTv5 if is_5 else mqtt.MQTTv311}
    options["transport"] = "websockets" if how.get("websockets") else "tcp"
    if not is_5:
        options["clean_session"] = how["clean"]
    if hasattr(mqtt, "CallbackAPIVersion"):
        options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION2
    client = mqtt.Client(**options)
    client.username_pw_set(how["user"], how["password"])
    if "ca" in how:
        client.tls_set(ca_certs=how["ca"])
    if how.get("websockets"):
        client.ws_set_options(path="/mqtt")
    if "will" in how:
        will = how["will"]
        client.will_set(will["topic"], will["payload"], will["qos"], will["retain"])
    client.on_connect = lambda client, _, flags, code, *more: tell(
        "connected",
        session_present=bool(flags["session present"] if isinstance(flags, dict) else flags.session_present),
        code=code if isinstance(code, int) else code.value,
    )
    client.on_message = lambda client, _, message: tell(
        "message",
        topic=message.topic,
        payload=message.payload.decode(),
        qos=message.qos,
        retain=bool(message.retain),
        properties=shown(message),
    )
    client.on_publish = lambda client, _, mid, *more: tell("published", id=mid)
    client.on_subscribe = lambda client, _, mid, codes, *more: tell(
        "subscribed", codes=[code if isinstance(code, int) else code.value for code in codes]
    )
    return client


def main():
    how = json.loads(sys.stdin.readline())
    client = make(how)
    more = {}
    if how["version"] == 5:
        expiry = {} if how["clean"] else {"SessionExpiryInterval": 600}
        more = {"clean_start": how["clean"], "properties": properties_of(PacketTypes.CONNECT, expiry)}
    client.connect("localhost", how["port"], **more)
    client.loop_start()
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "subscribe":
            client.subscribe(command["filter"], command["qos"])
        elif command["do"] == "publish":
            more = {}
            if command.get("properties"):
                more["properties"] = properties_of(PacketTypes.PUBLISH, command["properties"])
            client.publish(command["topic"], command["payload"], command["qos"], command["retain"], **more)
        elif command["do"] == "die":
            # The connection ends as a pulled cable would end it: without a DISCONNECT.
            client.socket().shutdown(socket.SHUT_RDWR)
            return
    client.disconnect()
    client.loop_stop()


main()
