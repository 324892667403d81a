// Reads server-sent events from bytes (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
// The browser's own EventSource can't say when it tries again, gives up on a refused request, and starts over without its last id.

export type ServerEvent = { type: string; data: string; id: string };

export class EventParser {
  #rest = "";
  #data: string[] = [];
  #type = "";
  #id = "";

  /** The id to resume with: of the last event, or one that came alone, before the first event. */
  get lastId(): string {
    return this.#id;
  }

  /** Takes the next piece of the stream and gives the events that it completes. */
  take(piece: string): ServerEvent[] {
    const events: ServerEvent[] = [];
    let text = this.#rest + piece;
    // A carriage return at the end may be the first half of a CR LF pair.
    const tail = text.endsWith("\r") ? "\r" : "";
    text = text.slice(0, text.length - tail.length);
    const lines = text.split(/\r\n|\n|\r/);
    this.#rest = (lines.pop() ?? "") + tail;
    for (const line of lines) {
      const event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  #line(line: string): ServerEvent | null {
    if (line === "") return this.#end();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    return null;
  }

  #end(): ServerEvent | null {
    const data = this.#data.join("\n");
    const type = this.#type || "message";
    const isEmpty = this.#data.length === 0;
    this.#data = [];
    this.#type = "";
    return isEmpty ? null : { type, data, id: this.#id };
  }
}
