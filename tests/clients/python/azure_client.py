"""The unmodified Azure device SDK for Python, told what to do line by line and telling what it saw, line by line.

    azure_client.py device   a device, or a module with a certificate; its first line on stdin says how it connects, each further line is a command
    azure_client.py module   a module in its container; commands come as payloads of its direct method "do"

A command is {"do": VERB, ...}; what happened is printed as {"event": NAME, ...}. One line is one JSON object.
"""

import json
import os
import signal
import sys
import threading

from azure.iot.device import (
    IoTHubDeviceClient,
    IoTHubModuleClient,
    Message,
    MethodResponse,
    X509,
)

printing = threading.Lock()


def tell(event, **fields):
    with printing:
        print(json.dumps({"event": event, **fields}), flush=True)


def text(body):
    return body.decode() if isinstance(body, bytes) else str(body)


class Client:
    def __init__(self, sdk):
        self.sdk = sdk
        sdk.on_connection_state_change = lambda: tell("connection", is_connected=sdk.connected)
        sdk.on_background_exception = lambda error: tell("background", error=repr(error))
        sdk.connect()
        # Each of these subscribes and returns when the gateway has answered.
        sdk.on_message_received = self.message
        sdk.on_method_request_received = self.method
        sdk.on_twin_desired_properties_patch_received = lambda patch: tell("desired", patch=patch)
        tell("ready")

    def message(self, message):
        tell(
            "message",
            body=text(message.data),
            input=message.input_name,
            properties=message.custom_properties,
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            content_type=message.content_type,
        )

    def method(self, request):
        tell("method", name=request.name, payload=request.payload)
        if request.name == "do":
            try:
                status, payload = 200, self.do(request.payload)
            except Exception as error:
                status, payload = 500, {"error": repr(error)}
        elif request.name == "echo":
            status, payload = 200, request.payload
        else:
            status, payload = 404, {"unknown": request.name}
        self.sdk.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    def do(self, command):
        """Does one command; what it gives is the answer of the method "do"."""
        verb = command["do"]
        if verb == "send":
            message = Message(command["body"], content_encoding="utf-8", content_type="application/json")
            message.custom_properties.update(command.get("properties", {}))
            if "output" in command:
                self.sdk.send_message_to_output(message, command["output"])
            else:
                self.sdk.send_message(message)
            tell("sent", body=command["body"])
        elif verb == "twin":
            twin = self.sdk.get_twin()
            tell("twin", twin=twin)
            return twin
        elif verb == "report":
            self.sdk.patch_twin_reported_properties(command["patch"])
            tell("reported", patch=command["patch"])
        elif verb == "invoke":
            answer = self.sdk.invoke_method(
                {
                    "methodName": command["method"],
                    "payload": command["payload"],
                    "responseTimeoutInSeconds": 9,
                    "connectTimeoutInSeconds": 5,
                },
                command["device"],
                command.get("module"),
            )
            tell("invoked", answer=answer)
            return answer
        else:
            raise ValueError("unknown command " + verb)
        return {}


def device(how):
    with open(how["ca"]) as file:
        options = {"server_verification_cert": file.read()}
    options["websockets"] = how.get("websockets", False)
    # The default of 10 s would only make the tests slow.
    options["connection_retry_interval"] = 1
    if "module" in how:
        return IoTHubModuleClient.create_from_x509_certificate(
            x509=X509(cert_file=how["certificate"], key_file=how["key"]),
            hostname=how["hub"],
            device_id=how["device"],
            module_id=how["module"],
            gateway_hostname=how["gateway"],
            **options,
        )
    if "certificate" in how:
        return IoTHubDeviceClient.create_from_x509_certificate(
            x509=X509(cert_file=how["certificate"], key_file=how["key"]),
            hostname=how["hub"],
            device_id=how["device"],
            gateway_hostname=how["gateway"],
            **options,
        )
    return IoTHubDeviceClient.create_from_connection_string(how["connection_string"], **options)


def main():
    if sys.argv[1] == "module":
        # A container's first process has no default handling of SIGTERM.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        client = Client(IoTHubModuleClient.create_from_edge_environment(connection_retry_interval=1))
        threading.Event().wait()
    client = Client(device(json.loads(sys.stdin.readline())))
    for line in sys.stdin:
        command = json.loads(line)
        try:
            client.do(command)
        except Exception as error:
            tell("failed", command=command, error=repr(error), cause=repr(error.__cause__))
    client.sdk.shutdown()
    tell("ended")


main()
