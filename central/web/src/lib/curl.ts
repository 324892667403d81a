// The same request from a shell, for who wants to do it again by a script.

import { addressOf, type Query } from "./api";

export type Write = { method: string; path: string; body?: unknown; query?: Query };

/** Quotes for sh. */
export function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A curl line with the token left to an environment variable. */
export function curl(write: Write, origin: string): string {
  const lines = [`curl -X ${write.method} ${quoted(origin + addressOf(write.path, write.query))}`];
  lines.push(`  -H "Authorization: $CENTRAL_TOKEN"`);
  if (write.body !== undefined) {
    lines.push(`  -H 'Content-Type: application/json'`);
    lines.push(`  -d ${quoted(JSON.stringify(write.body))}`);
  }
  return lines.join(" \\\n");
}
