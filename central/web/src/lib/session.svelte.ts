// Who is signed in, and what that role may do. central decides; the console only leaves out what would be refused.

import { ApiError, get, post, remove, whenSignedOut } from "./api";
import type { PermissionId, Session } from "./types";

type Phase = "asking" | "setup" | "out" | "in" | "unreached";

class SessionStore {
  phase = $state<Phase>("asking");
  current = $state.raw<Session | null>(null);
  /** Whether a session ended by itself, so that the sign-in page can say so. */
  hasEnded = $state(false);

  constructor() {
    whenSignedOut(() => {
      if (this.phase !== "in") return;
      this.hasEnded = true;
      this.current = null;
      this.phase = "out";
    });
  }

  /** Finds out how things stand: a session, none, or no user at all yet. */
  async ask(): Promise<void> {
    try {
      this.#enter(await get<Session>("/api/ext/session"));
      return;
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) {
        this.phase = "unreached";
        return;
      }
    }
    try {
      const { needed } = await get<{ needed: boolean }>("/api/ext/setup");
      this.phase = needed ? "setup" : "out";
    } catch {
      this.phase = "out";
    }
  }

  async signIn(user: string, password: string): Promise<void> {
    this.#enter(await post<Session>("/api/ext/session", { user, password }));
  }

  async setUp(code: string, user: string, password: string): Promise<void> {
    this.#enter(await post<Session>("/api/ext/setup", { code, user, password }));
  }

  async signOut(): Promise<void> {
    try {
      await remove("/api/ext/session");
    } finally {
      this.current = null;
      this.hasEnded = false;
      this.phase = "out";
    }
  }

  #enter(session: Session): void {
    this.current = session;
    this.hasEnded = false;
    this.phase = "in";
  }

  may(permission: PermissionId): boolean {
    return this.current?.user.permissions.includes(permission) ?? false;
  }
}

export const session = new SessionStore();
