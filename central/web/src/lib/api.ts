// Requests to central's REST API, and its errors as the console shows them.

import { clock } from "./clock.svelte";

/** Serves every path that the console asks; paths below /api/ext need none. */
const API_VERSION = "2022-10-31-preview";

export type Query = Record<string, string | number | boolean | string[] | null | undefined>;
export type Options = {
  query?: Query;
  body?: unknown;
  /** The state that the change is made on; refused with 412 when another stands. */
  etag?: string;
  /** Makes something new, and changes nothing that is there. */
  isNew?: boolean;
  signal?: AbortSignal;
};

/** What central refused, or why it was not reached. */
export class ApiError extends Error {
  constructor(
    /** HTTP status; 0 when central was not reached. */
    readonly status: number,
    readonly code: string,
    message: string,
    readonly requestId: string | null,
  ) {
    super(message);
  }
}

let onSignedOut: () => void = () => {};
/** Calls back when central no longer knows the session. */
export function whenSignedOut(callback: () => void): void {
  onSignedOut = callback;
}

/** The path with its query, as it is requested. */
export function addressOf(path: string, query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === null || value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) search.append(name, String(one));
  }
  if (!path.startsWith("/api/ext/") && path.startsWith("/api/")) search.set("api-version", API_VERSION);
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export async function request<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const headers: Record<string, string> = { Accept: "application/json" };
  // A change without a body says it too: a form of a foreign page can't.
  if (method !== "GET") headers["Content-Type"] = "application/json";
  if (options.etag) headers["If-Match"] = options.etag;
  if (options.isNew) headers["If-None-Match"] = "*";
  const init: RequestInit = { method, headers, credentials: "same-origin", signal: options.signal ?? null };
  if (options.body !== undefined) init.body = JSON.stringify(options.body);
  let response: Response;
  try {
    response = await fetch(addressOf(path, options.query), init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(
      0,
      "NotReached",
      "central was not reached; check that it runs and that this computer has a network",
      null,
    );
  }
  clock.learn(response.headers.get("date"));
  if (!response.ok) throw await refusal(response, path);
  if (response.status === 204) return undefined as T;
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

async function refusal(response: Response, path: string): Promise<ApiError> {
  if (response.status === 401 && path !== "/api/ext/session") onSignedOut();
  let detail: { code?: string; message?: string; requestId?: string } = {};
  try {
    detail = ((await response.json()) as { error?: typeof detail }).error ?? {};
  } catch {
    // A proxy's page, or nothing: the status says what there is to say.
  }
  const message = detail.message ?? `central answered with ${response.status} ${response.statusText}`;
  return new ApiError(
    response.status,
    detail.code ?? String(response.status),
    message,
    detail.requestId ?? null,
  );
}

export const get = <T>(path: string, query?: Query, signal?: AbortSignal) =>
  request<T>("GET", path, { ...(query ? { query } : {}), ...(signal ? { signal } : {}) });
export const put = <T>(path: string, body: unknown, etag?: string) =>
  request<T>("PUT", path, { body, ...(etag ? { etag } : {}) });
export const patch = <T>(path: string, body: unknown, etag?: string) =>
  request<T>("PATCH", path, { body, ...(etag ? { etag } : {}) });
export const post = <T>(path: string, body?: unknown) => request<T>("POST", path, { body });
export const remove = (path: string) => request<void>("DELETE", path);

/** What a caught value says. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether a request was given up by the page itself. */
export function isAborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** The path of a device, `/api/devices/ID/…` or `/api/ext/devices/ID/…`. */
export function devicePath(id: string, rest = ""): string {
  return `/api/devices/${encodeURIComponent(id)}${rest}`;
}
export function extDevicePath(id: string, rest = ""): string {
  return `/api/ext/devices/${encodeURIComponent(id)}${rest}`;
}
