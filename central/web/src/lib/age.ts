// Times as an operator reads them: how long ago first, the instant on hover.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** `12 s`, `3 min`, `2 h 04 min`, `3 d`. */
export function duration(ms: number): string {
  const length = Math.max(0, ms);
  if (length < MINUTE) return `${Math.floor(length / SECOND)} s`;
  if (length < HOUR) return `${Math.floor(length / MINUTE)} min`;
  if (length < DAY) {
    const minutes = Math.floor((length % HOUR) / MINUTE);
    return `${Math.floor(length / HOUR)} h ${String(minutes).padStart(2, "0")} min`;
  }
  return `${Math.floor(length / DAY)} d`;
}

/** When the text of an age changes next, in ms from now: nobody needs to look before. */
export function nextTick(ms: number): number {
  const length = Math.max(0, ms);
  if (length < MINUTE) return SECOND - (length % SECOND);
  if (length < DAY) return Math.min(MINUTE - (length % MINUTE), 30 * SECOND);
  return 30 * SECOND;
}

const FULL = new Intl.DateTimeFormat("en-GB", {
  dateStyle: "medium",
  timeStyle: "medium",
});
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY_OF = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short" });

/** `29 Nov 2026, 03:12:08` here, and the same instant in UTC. */
export function instant(time: string | number): string {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return String(time);
  return `${FULL.format(at)} (${at.toISOString()})`;
}

/** `03:12:08` of today, with the day before that. */
export function clockTime(time: string | number, now: number): string {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return String(time);
  const isToday = at.toDateString() === new Date(now).toDateString();
  return isToday ? CLOCK.format(at) : `${DAY_OF.format(at)} ${CLOCK.format(at)}`;
}

/** Unix milliseconds of an RFC 3339 time, or null. */
export function parseTime(time: string | null | undefined): number | null {
  if (!time) return null;
  const at = Date.parse(time);
  return Number.isNaN(at) ? null : at;
}
