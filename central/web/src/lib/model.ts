// What the template of a device says of it: the capabilities that forms, names and units are made of.

import type { PropertiesAnswer, Property } from "./properties";
import { rowsOf } from "./properties";
import { viewTemplate } from "./templates";
import type { Capability, TemplateInterface } from "./types";

export type Modelled = { component: string | null; capability: Capability };

export class DeviceModel {
  constructor(readonly interfaces: TemplateInterface[]) {}

  get all(): Modelled[] {
    return this.interfaces.flatMap((one) =>
      one.capabilities.map((capability) => ({ component: one.component ?? null, capability })),
    );
  }

  of(component: string | null, name: string): Capability | null {
    const found = this.all.find((one) => one.component === component && one.capability.name === name);
    return found?.capability ?? null;
  }

  get commands(): Modelled[] {
    return this.all.filter((one) => one.capability.kind === "command");
  }

  get components(): string[] {
    return this.all
      .filter((one) => one.capability.kind === "component" && one.component === null)
      .map((one) => one.capability.name);
  }

  properties(component: string | null): Capability[] {
    const kinds = ["property", "cloudProperty"];
    return this.all
      .filter((one) => one.component === component && kinds.includes(one.capability.kind))
      .map((one) => one.capability);
  }
}

/** The model of a template; null for none, one that is not stored, or one that can't be read. */
export async function modelOf(
  template: string | null | undefined,
  signal: AbortSignal,
): Promise<DeviceModel | null> {
  if (!template) return null;
  try {
    const view = await viewTemplate(template, signal);
    return view.model.interfaces.length > 0 ? new DeviceModel(view.model.interfaces) : null;
  } catch (error) {
    if (signal.aborted) throw error;
    return null;
  }
}

/** The method of a command, as it goes over the wire. */
export function methodOf({ component, capability }: Modelled): string {
  return component ? `${component}*${capability.name}` : capability.name;
}

export type PropertyRow = Property & { capability: Capability | null };
export type PropertyGroup = {
  component: string | null;
  isCloud: boolean;
  title: string;
  rows: PropertyRow[];
};

const NOTHING = {
  desired: undefined,
  hasDesired: false,
  reported: undefined,
  hasReported: false,
  state: "reported" as const,
  ack: null,
  at: null,
  version: null,
};

/** The properties of a device in groups: its own, those of each component, and those that central keeps for itself. */
export function groupsOf(
  answer: PropertiesAnswer,
  reported: Record<string, unknown>,
  model: DeviceModel | null,
): PropertyGroup[] {
  const components = model?.components ?? [];
  const own = withModel(rowsOf(answer, reported), model, null).filter(
    (row) => !components.includes(row.name),
  );
  // central keeps them itself: there is one value, and nobody acknowledges it.
  const cloud = own
    .filter((row) => row.capability?.kind === "cloudProperty")
    .map((row) => ({ ...row, desired: answer[row.name], hasDesired: answer[row.name] !== undefined }));
  const groups: PropertyGroup[] = [
    {
      component: null,
      isCloud: false,
      title: "",
      rows: own.filter((row) => row.capability?.kind !== "cloudProperty"),
    },
  ];
  for (const component of components) {
    const inner = (answer[component] ?? {}) as PropertiesAnswer;
    const told = (reported[component] ?? {}) as Record<string, unknown>;
    const rows = withModel(rowsOf(inner, told), model, component);
    if (rows.length > 0) groups.push({ component, isCloud: false, title: `Component ${component}`, rows });
  }
  if (cloud.length > 0)
    groups.push({ component: null, isCloud: true, title: "Cloud properties", rows: cloud });
  return groups;
}

function withModel(rows: Property[], model: DeviceModel | null, component: string | null): PropertyRow[] {
  const capabilities = model?.properties(component) ?? [];
  const known = new Map(rows.map((row) => [row.name, row]));
  const modelled = capabilities.map((capability) => ({
    ...(known.get(capability.name) ?? { ...NOTHING, name: capability.name }),
    capability,
  }));
  const names = new Set(capabilities.map((capability) => capability.name));
  return [
    ...modelled,
    ...rows.filter((row) => !names.has(row.name)).map((row) => ({ ...row, capability: null })),
  ];
}
