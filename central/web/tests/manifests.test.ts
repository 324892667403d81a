import { expect, test } from "vitest";
import { changes, EMPTY_MANIFEST, moduleNames, placeOf } from "../src/lib/manifests";

function manifest(modules: object, routes: object = {}, more: object = {}) {
  return {
    modulesContent: {
      $edgeAgent: { "properties.desired": { modules } },
      $edgeHub: { "properties.desired": { routes } },
      ...more,
    },
  };
}
const module = (image: string, more: object = {}) => ({
  settings: { image },
  restartPolicy: "always",
  ...more,
});

test("a change is told by what it means", () => {
  const before = manifest(
    { vision: module("v:1", { env: { BATCH: { value: "8" } } }), old: module("o:1") },
    { up: "FROM /messages/* INTO $upstream" },
  );
  const after = manifest(
    { vision: module("v:2", { env: { BATCH: { value: "4" }, POOL: { value: "1" } } }), fresh: module("f:1") },
    { up: { route: "FROM /messages/* WHERE a INTO $upstream" } },
    { vision: { "properties.desired": { rate: 5 } } },
  );
  expect(changes(before, after)).toEqual([
    { subject: "fresh", says: "Added", to: "f:1" },
    { subject: "old", says: "Removed", from: "o:1" },
    { subject: "vision", says: "Image", from: "v:1", to: "v:2" },
    { subject: "vision", says: "BATCH", from: "8", to: "4" },
    { subject: "vision", says: "POOL", from: "", to: "1" },
    {
      subject: "Route up",
      says: "Changed",
      from: "FROM /messages/* INTO $upstream",
      to: "FROM /messages/* WHERE a INTO $upstream",
    },
    { subject: "vision", says: "Desired rate", from: "", to: "5" },
  ]);
});

test("the same manifest, written otherwise, changes nothing", () => {
  const one = manifest({
    a: module("a:1", { settings: { image: "a:1", createOptions: '{"HostConfig":{"Memory":1,"Binds":[]}}' } }),
  });
  const other = manifest({
    a: module("a:1", { settings: { createOptions: { HostConfig: { Binds: [], Memory: 1 } }, image: "a:1" } }),
  });
  expect(changes(one, other)).toEqual([]);
});

test("what is no manifest has no modules and breaks nothing", () => {
  for (const data of [
    null,
    5,
    "x",
    [],
    {},
    { modulesContent: 5 },
    { modulesContent: { $edgeAgent: null } },
  ]) {
    expect(moduleNames(data)).toEqual([]);
    expect(changes(data, EMPTY_MANIFEST).length).toBeGreaterThan(0);
  }
});

test("a refusal leads to the value that it speaks of", () => {
  const text = JSON.stringify(
    manifest({ a: module("a:1"), vision: module("v:1", { restartPolicy: "on-failed" }) }),
    null,
    2,
  );
  const place = placeOf(
    "modulesContent.$edgeAgent.properties.desired.modules.vision.restartPolicy: found `on-failed`; allowed are always",
    text,
  );
  expect(place && text.slice(place.from, place.to)).toBe('"on-failed"');
});

test("a refusal that names no place leads nowhere", () => {
  expect(placeOf("the body is too large", "{}")).toBe(null);
});
