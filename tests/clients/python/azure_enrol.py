"""A device that enrols itself by the unmodified Azure SDK for Python, and then works as the device that it became.

Its first line on stdin says how: {"host", "scope", "id", "ca"[, "gateway"]} and either the group's key, "group_key", or its own
"certificate" and "key" (PEM files; those between it and the group's follow its own). It tells what the provisioning client
was told, connects to the assigned hub with the derived key or the same certificate, sends one message, and tells each
cloud-to-device message that it receives, until its input ends. One line is one JSON object, as in azure_client.py.
"""

import base64
import hashlib
import hmac
import json
import sys

from azure.iot.device import IoTHubDeviceClient, Message, ProvisioningDeviceClient, X509


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def main():
    how = json.loads(sys.stdin.readline())
    with open(how["ca"]) as file:
        options = {"server_verification_cert": file.read()}
    place = {"provisioning_host": how["host"], "registration_id": how["id"], "id_scope": how["scope"]}
    if "certificate" in how:
        x509 = X509(cert_file=how["certificate"], key_file=how["key"])
        registering = ProvisioningDeviceClient.create_from_x509_certificate(x509=x509, **place, **options)
    else:
        group_key = base64.b64decode(how["group_key"])
        key = base64.b64encode(hmac.new(group_key, how["id"].encode(), hashlib.sha256).digest()).decode()
        registering = ProvisioningDeviceClient.create_from_symmetric_key(symmetric_key=key, **place, **options)
    tell("enrolling")
    result = registering.register()
    state = result.registration_state
    tell("enrolled", status=result.status, hub=state.assigned_hub, device=state.device_id, substatus=state.sub_status)
    if "gateway" in how:
        options["gateway_hostname"] = how["gateway"]
    hub = {"hostname": state.assigned_hub, "device_id": state.device_id}
    if "certificate" in how:
        device = IoTHubDeviceClient.create_from_x509_certificate(x509=x509, **hub, **options)
    else:
        device = IoTHubDeviceClient.create_from_symmetric_key(symmetric_key=key, **hub, **options)
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
