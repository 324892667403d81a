// What central answers, by the names that the console uses. Bodies that central describes are of schema.d.ts, which tools/types.mjs
// generates; the rest is written here until /openapi.json has its paths.

import type { components } from "./schema";

type Schemas = components["schemas"];
/** A body of an answer: what may be null is there all the same. */
type Answer<Name extends keyof Schemas> = Required<Schemas[Name]>;

export type Verdict = Schemas["Verdict"];
export type Lifecycle = Schemas["Lifecycle"];

export type State = Answer<"DeviceState">;

export type GridRow = Omit<Answer<"GridRow">, "state"> & { state: State };
export type GridPage = { value: GridRow[]; nextCursor: string | null };
export type GridCounts = {
  total: number;
  byVerdict: Partial<Record<Verdict, number>>;
  byTemplate: Record<string, number>;
};

export type Session = Schemas["SessionBody"];
export type PermissionId = Schemas["PermissionId"];

export type Device = Schemas["DeviceBody"];

export type ModuleStatus = Answer<"ModuleStatus">;
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
export type Finding = Schemas["FindingReport"];
export type DeviceStatus = Omit<Answer<"StatusBody">, "modules" | "health"> & {
  modules: ModuleStatus[];
  health: { updated: string; findings: Finding[]; refusals: Refusal[] } | null;
  /** Of a central that tells it here too. */
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

export type Message = Schemas["MessageBody"];

export type LogLine = Answer<"ModuleLogLine">;

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

export type Loss = Schemas["LossBody"];

export type Cause = {
  id: string;
  sentence: string;
  certainty: "certain" | "likely";
  evidence: { at: string | null; text: string }[];
  mend: { text: string; action: string | null; command: string | null };
};
export type Diagnosis = { verdict: Verdict; causes: Cause[]; text: string };

export type Need = {
  device: string;
  displayName: string;
  kind: "device" | "gateway";
  state: State;
  since: string | null;
  causeId: string | null;
  sentence: string;
  group: "now" | "later";
  hidden: number;
};
export type AuditRow = {
  id: number;
  at: string;
  who: string;
  whoKind: "user" | "token" | "commandLine" | "nobody";
  kind: string;
  method: string | null;
  path: string | null;
  status: number | null;
  address: string | null;
  before: unknown;
  after: unknown;
};
/** A row of the audit log without what stood before and after. */
export type OverviewChange = Pick<AuditRow, "id" | "at" | "who" | "kind" | "method" | "path" | "status">;
export type OverviewAnswer = {
  counts: {
    devices: Partial<Record<Verdict, number>>;
    gateways: Partial<Record<Verdict, number>>;
  };
  needsYou: Need[];
  ingest: { messagesPerSecond: number };
  storage: { bytesUsed: number; bytesFree: number; limitBytes: number };
  changes: OverviewChange[];
};

export type Manifest = Schemas["ManifestBody"];
export type Preview = Answer<"PreviewBody">;
export type ModulePreview = Answer<"ModulePreviewBody">;
export type RolloutState = Schemas["RolloutState"];
export type RolloutRow = Omit<Answer<"RolloutRow">, "gatewayState"> & { gatewayState: State };
export type Rollout = Omit<Answer<"RolloutBody">, "value" | "counts"> & {
  counts: Record<RolloutState, number>;
  value: RolloutRow[];
};
export type RouteTest = Schemas["RouteTestBody"];
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
export type Role = Schemas["RoleWithPermissions"];
export type Token = {
  id: string;
  roles: { role: string; organization?: string }[];
  expiry?: string;
  token?: string;
  lastUsed?: string | null;
};

export type Template = Schemas["TemplateBody"] & { "@id": string };
export type TemplateRow = Schemas["TemplateRow"];
export type TemplateList = Schemas["TemplateList"];
export type TemplateView = Answer<"TemplateView">;
export type TemplatePreview = Schemas["TemplatePreview"];
export type TemplateModel = Schemas["ModelBody"];
export type TemplateProblem = Schemas["ProblemBody"];
export type TemplateSchema = Schemas["SchemaBody"];
export type Capability = Schemas["CapabilityBody"];
export type TemplateInterface = Schemas["InterfaceBody"];

export type OverviewTile = Schemas["OverviewTile"];
export type OverviewTiles = Schemas["OverviewTiles"];

export type ImportPreview = Schemas["ImportPreview"];
export type Operation = Schemas["OperationBody"];
export type OperationDetail = Operation & { faults: Schemas["FaultBody"][] };
