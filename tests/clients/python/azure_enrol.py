"""A device that enrols itself by the unmodified Azure SDK for Python, and then works as the device that it became.

Its first line on stdin says how: {"host", "scope", "id", "group_key", "ca"[, "gateway"]}. It tells what the provisioning
client was told, connects to the assigned hub with the derived key, sends one message, and tells each cloud-to-device message
that it receives, until its input ends. One line is one JSON object, as in azure_client.py.
"""

import base64
import hashlib
import hmac
import json
import sys

from azure.iot.device import IoTHubDeviceClient, Message, ProvisioningDeviceClient


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def main():
    how = json.loads(sys.stdin.readline())
    with open(how["ca"]) as file:
        options = {"server_verification_cert": file.read()}
    group_key = base64.b64decode(how["group_key"])
    key = base64.b64encode(hmac.new(group_key, how["id"].encode(), hashlib.sha256).digest()).decode()
    registering = ProvisioningDeviceClient.create_from_symmetric_key(
        provisioning_host=how["host"],
        registration_id=how["id"],
        id_scope=how["scope"],
        symmetric_key=key,
        **options,
    )
    tell("enrolling")
    result = registering.register()
    state = result.registration_state
    tell("enrolled", status=result.status, hub=state.assigned_hub, device=state.device_id, substatus=state.sub_status)
    if "gateway" in how:
        options["gateway_hostname"] = how["gateway"]
    device = IoTHubDeviceClient.create_from_symmetric_key(
        symmetric_key=key, hostname=state.assigned_hub, device_id=state.device_id, **options
    )
    device.connect()
    device.on_message_received = lambda message: tell(
        "message",
        body=message.data.decode(),
        properties=message.custom_properties,
        message_id=message.message_id,
        content_type=message.content_type,
        expiry=message.expiry_time_utc,
        ack=message.ack,
    )
    device.send_message(Message('{"enrolled": true}', content_encoding="utf-8", content_type="application/json"))
    tell("sent")
    sys.stdin.read()
    device.shutdown()
    tell("ended")


main()
