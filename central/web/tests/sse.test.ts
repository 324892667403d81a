import { expect, test } from "vitest";
import { EventParser, type ServerEvent } from "../src/lib/sse";

const STREAM =
  ': ping\n\nid: 1-7\nevent: state\ndata: {"a":\ndata: 1}\n\ndata: bare\r\n\r\nevent: empty\n\nid: 1-8\rdata:none\r\r';

test("a stream gives the same events however it is cut into pieces", () => {
  const whole = new EventParser().take(`${STREAM}\n`);
  expect(whole).toEqual<ServerEvent[]>([
    { type: "state", data: '{"a":\n1}', id: "1-7" },
    { type: "message", data: "bare", id: "1-7" },
    { type: "message", data: "none", id: "1-8" },
  ]);
  for (let size = 1; size < STREAM.length; size += 1) {
    const parser = new EventParser();
    const events: ServerEvent[] = [];
    for (let at = 0; at < STREAM.length; at += size) events.push(...parser.take(STREAM.slice(at, at + size)));
    events.push(...parser.take("\n"));
    expect(events, `pieces of ${size}`).toEqual(whole);
  }
});

test("an id stays until another one comes, and an event without data is none", () => {
  const parser = new EventParser();
  expect(parser.take("id: 3\n\n")).toEqual([]);
  expect(parser.take("data: x\n\n")).toEqual([{ type: "message", data: "x", id: "3" }]);
});

test("an id that comes alone is one to resume with", () => {
  const parser = new EventParser();
  expect(parser.take("retry: 2000\nid: 4-1\n\n")).toEqual([]);
  expect(parser.lastId).toBe("4-1");
});
