// Where the button of a mend leads. Acts that change something ask there before they do it.

import { pathTo } from "./router.svelte";

export type Subject = { id: string; base: "devices" | "gateways"; gateway: string | null };
export type Target = { to: string; word: string };

/** The act of a cause in central's words; null where a person has to do something away from the console. */
export function targetOf(action: string | null, { id, base, gateway }: Subject): Target | null {
  switch (action) {
    case "openConnect":
      return { to: pathTo(base, id, "connect"), word: "Show its connection string" };
    case "unblock":
      return { to: `${pathTo(base, id)}?do=unblock`, word: "Unblock it" };
    case "approve":
      return { to: `${pathTo(base, id)}?do=approve`, word: "Approve it" };
    case "openGateway":
      return gateway ? { to: pathTo("gateways", gateway), word: "Open its gateway" } : null;
    case "openModules":
      return { to: pathTo("gateways", id, "modules"), word: "Open its modules" };
    case "openRaw":
      return { to: pathTo(base, id, "raw"), word: "Show the raw messages" };
    case "openLosses":
      return { to: pathTo(base, id, "health"), word: "Show what was lost" };
    default:
      return null;
  }
}

const ACTION_OF: Record<string, string> = {
  "wrong-key": "openConnect",
  "token-expired": "openConnect",
  "token-audience": "openConnect",
  "credentials-form": "openConnect",
  certificate: "openConnect",
  "never-connected": "openConnect",
  "module-not-running": "openModules",
  "payload-undecodable": "openRaw",
  "too-many-names": "openRaw",
  blocked: "unblock",
  "waiting-for-approval": "approve",
};

/** The act of a cause of which only the id is known, as in the overview; its evidence where there is none. */
export function targetOfCause(causeId: string | null, subject: Subject): Target {
  const action = ACTION_OF[causeId ?? ""] ?? null;
  return (
    targetOf(action, subject) ?? {
      to: pathTo(subject.base, subject.id, "health"),
      word: "Show the evidence",
    }
  );
}
