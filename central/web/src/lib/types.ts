// What central answers, by the names that the console uses. Bodies that /openapi.json describes are taken from schema.d.ts, which
// `npm run types` generates; the rest is written here until their paths are in it.

export type Verdict = "ok" | "degraded" | "offline" | "blocked" | "waiting" | "unknown";
export type Lifecycle = "Registered" | "Provisioned" | "Blocked" | "WaitingForApproval";

export type State = {
  connectivity: "connected" | "disconnected" | "never" | "unknown";
  since: string | null;
  lifecycle: Lifecycle;
  verdict: Verdict;
  reason: string | null;
  modulesWanted: number | null;
  modulesRunning: number | null;
};

export type GridRow = {
  id: string;
  displayName: string;
  kind: "device" | "gateway";
  template: string | null;
  gateway: string | null;
  organization: string;
  state: State;
  lastSeen: string | null;
  lastTelemetryAt: string | null;
  manifest: { id: string | null; name: string | null; upToDate: boolean } | null;
  children: number;
};
export type GridPage = { value: GridRow[]; nextCursor: string | null };
export type GridCounts = {
  total: number;
  byVerdict: Partial<Record<Verdict, number>>;
  byTemplate: Record<string, number>;
};

export type Session = {
  user: { id: string; name: string; role: string; roleName: string };
  expiresAt: string;
};

export type Device = {
  id: string;
  etag: string;
  displayName: string;
  template?: string;
  simulated: boolean;
  enabled: boolean;
  provisioned: boolean;
  organizations?: string[];
  type?: string[];
  deploymentManifest?: { id?: string; displayName?: string; data?: unknown };
};

export type ModuleStatus = {
  name: string;
  connected: boolean;
  since: string | null;
  desiredStatus: string | null;
  status: string;
  reason: string | null;
  nextTry: string | null;
  restarts: number | null;
  image: string | null;
};
export type Refusal = {
  identity?: string;
  why: string;
  from: string;
  protocol: string;
  proof?: string | null;
  first: string;
  last: string;
  count: number;
  gateway?: string | null;
};
export type Finding = { id: string; level: string; evidence: string; mend: string };
export type DeviceStatus = {
  id: string;
  connected: boolean;
  since: string | null;
  lastSeen: string | null;
  gateway: string | null;
  identityConflict: { takeovers: number; addresses: string[]; isProven: boolean; last: string } | null;
  modules: ModuleStatus[];
  health: { updated: string; findings: Finding[]; refusals: Refusal[] } | null;
  state?: State;
};

export type LastValue = {
  module: string | null;
  component: string | null;
  name: string;
  at: string;
  enqueuedAt: string;
  value: unknown;
  isNumber: boolean;
};
export type Series = {
  name: string;
  t: number[];
  min: number[];
  avg: number[];
  max: number[];
  last: number[];
  count: number[];
};
export type SeriesLoss = { from: string; to: string; count: number; cause: string };
export type SeriesAnswer = {
  from: string;
  to: string;
  stepMs: number;
  series: Series[];
  losses: SeriesLoss[];
};

export type Message = {
  id: number;
  device: string;
  module?: string;
  enqueuedTime: string;
  properties: Record<string, string | null> | null;
  body?: unknown;
  bodyBase64?: string;
};

export type Command = {
  id: string;
  name?: string;
  module?: string | null;
  component?: string | null;
  by?: string | null;
  request: unknown;
  connectionTimeout: number;
  responseTimeout: number;
  requestedTime: string;
  validUntil?: string;
  takenTime?: string;
  endedTime?: string;
  responseCode?: number;
  response?: unknown;
  error?: string;
};

export type Section = { $version: number; $metadata?: unknown } & Record<string, unknown>;
export type Twin = { desired: Section; reported: Section };

export type Loss = {
  id: number;
  gateway: string;
  queue: string;
  device?: string;
  module?: string;
  cause: string;
  firstSequence: number;
  lastSequence: number;
  count: number;
  from: string;
  until: string;
  received: string;
};

export type Cause = {
  id: string;
  sentence: string;
  certainty: "certain" | "likely";
  evidence: { at: string | null; text: string }[];
  mend: { text: string; action: string | null; command: string | null } | null;
};
export type Diagnosis = { verdict: string; causes: Cause[] };

export type Need = {
  device: string;
  displayName: string;
  kind: "device" | "gateway";
  state: State;
  since: string | null;
  causeId: string;
  sentence: string;
  group: "now" | "later";
  hidden: number;
};
export type AuditRow = {
  id: number | string;
  at: string;
  who: string;
  whoKind?: "user" | "token" | "commandLine" | "nobody";
  kind: string;
  method: string | null;
  path: string | null;
  status: number | null;
  address: string | null;
  before: unknown;
  after: unknown;
};
export type OverviewAnswer = {
  counts: {
    devices?: Partial<Record<Verdict, number>>;
    gateways?: Partial<Record<Verdict, number>>;
  };
  needsYou: Need[];
  ingest: { messagesPerSecond: number };
  storage: { bytesUsed: number; bytesFree: number | null; limitBytes: number | null };
  changes: AuditRow[];
};

export type Manifest = {
  id: string;
  displayName: string;
  etag: string;
  data: unknown;
  organizations?: string[];
};
export type Page<T> = { value: T[]; nextLink?: string | null };
export type Credentials = {
  idScope?: string;
  symmetricKey?: { primaryKey: string; secondaryKey: string };
  x509?: unknown;
};
export type User = {
  id: string;
  type?: string;
  email?: string;
  roles: { role: string; organization?: string }[];
};
export type Role = { id: string; displayName: string };
export type Token = {
  id: string;
  roles: { role: string }[];
  expiry?: string;
  token?: string;
  lastUsed?: string | null;
};
