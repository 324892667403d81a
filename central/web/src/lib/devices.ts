// What operators do to devices, as central is asked for it: the same writes run and are shown as curl.

import { ApiError, devicePath, extDevicePath, patch, post, put, remove, request } from "./api";
import type { Write } from "./curl";
import type { Device } from "./types";

export type NewDevice = {
  id: string;
  displayName: string;
  template: string;
  isGateway: boolean;
  gateway: string;
};

/** IoT Central's rule for the ids of devices, and the one of MQTT client ids that central shares with IoT Hub. */
export function idError(id: string): string | null {
  if (!id) return "Write an id: the device connects by it.";
  if (id.length > 128) return `It has ${id.length} characters; at most 128.`;
  const wrong = /[^A-Za-z0-9\-:._+%@!*=$]/.exec(id)?.[0];
  if (wrong === " ")
    return "No blanks: the device connects by this id. A name for people goes into the next field.";
  return wrong ? `“${wrong}” can't be part of an id; letters, digits and - . _ can.` : null;
}

export function createWrite(device: NewDevice): Write {
  const body: Record<string, unknown> = {};
  if (device.displayName) body.displayName = device.displayName;
  if (device.template) body.template = device.template;
  if (device.isGateway) body.type = ["iotEdge"];
  return { method: "PUT", path: devicePath(device.id), body };
}

/** Makes a device that is not there yet, and puts it behind its gateway. */
export async function create(device: NewDevice): Promise<void> {
  const { path, body } = createWrite(device);
  try {
    await requestNew(path, body);
  } catch (error) {
    if (error instanceof ApiError && error.status === 412) {
      throw new ApiError(
        412,
        error.code,
        `There is a device ${device.id} already. Write another id, or open that one.`,
        null,
      );
    }
    throw error;
  }
  if (device.gateway) await attach(device.id, device.gateway);
}

function requestNew(path: string, body: unknown): Promise<Device> {
  return request<Device>("PUT", path, { body, isNew: true });
}

export function attach(device: string, gateway: string): Promise<unknown> {
  return put(devicePath(gateway, `/relationships/${encodeURIComponent(device)}`), { target: device });
}

export function enableWrite(id: string, isEnabled: boolean): Write {
  return { method: "PATCH", path: devicePath(id), body: { enabled: isEnabled } };
}

export function enable(id: string, isEnabled: boolean): Promise<Device> {
  return patch<Device>(devicePath(id), { enabled: isEnabled });
}

export type Decision = "approve" | "reject";

export function decideWrite(id: string, decision: Decision): Write {
  return { method: "POST", path: extDevicePath(id, `/${decision}`) };
}

export function decide(id: string, decision: Decision): Promise<unknown> {
  return post(decideWrite(id, decision).path);
}

/** Devices that one request decides about. */
const DECISIONS_MAX = 1000;

/** Approves or rejects many; gives those of which somebody else decided first. */
export async function decideAll(ids: string[], decision: Decision): Promise<string[]> {
  const left: string[] = [];
  for (let at = 0; at < ids.length; at += DECISIONS_MAX) {
    const devices = ids.slice(at, at + DECISIONS_MAX);
    const { value } = await post<{ value: { device: string; outcome: string }[] }>("/api/ext/approvals", {
      devices,
      decision,
    });
    left.push(
      ...value.filter((one) => !["approved", "rejected"].includes(one.outcome)).map((one) => one.device),
    );
  }
  return left;
}

export function deleteWrite(id: string): Write {
  return { method: "DELETE", path: devicePath(id) };
}

export function deleteDevice(id: string): Promise<void> {
  return remove(devicePath(id));
}

/** Does one thing to many, four at a time, and says how far it is. Gives what failed. */
export async function forEach(
  ids: string[],
  act: (id: string) => Promise<unknown>,
  onProgress: (done: number) => void,
): Promise<{ id: string; error: unknown }[]> {
  const failed: { id: string; error: unknown }[] = [];
  const left = [...ids];
  let done = 0;
  const work = async () => {
    for (let id = left.shift(); id !== undefined; id = left.shift()) {
      try {
        await act(id);
      } catch (error) {
        failed.push({ id, error });
      }
      done += 1;
      onProgress(done);
    }
  };
  await Promise.all([work(), work(), work(), work()]);
  return failed;
}
