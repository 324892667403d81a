// What the template of a device calls its values: names, units, enum values and their order. Without one, what the names say.

import { label, measured, shown } from "./format";
import type { DeviceModel } from "./model";
import { unitWord } from "./templates";
import type { Capability, LastValue } from "./types";

type Of = Pick<LastValue, "module" | "component" | "name">;

export class Naming {
  readonly #known = new Map<string, { capability: Capability; at: number }>();

  constructor(model: DeviceModel | null) {
    model?.all.forEach(({ component, capability }, at) => {
      if (capability.kind === "telemetry")
        this.#known.set(`${component ?? ""}/${capability.name}`, { capability, at });
    });
  }

  /** A module has a model of its own. */
  #find(of: Of) {
    return of.module === null ? this.#known.get(`${of.component ?? ""}/${of.name}`) : undefined;
  }

  capability(of: Of): Capability | null {
    return this.#find(of)?.capability ?? null;
  }

  name(of: Of): string {
    return this.capability(of)?.displayName ?? label(of.name);
  }

  unit(of: Of): string {
    const capability = this.capability(of);
    const own = capability?.extension?.displayUnit;
    return typeof own === "string" && own !== "" ? own : unitWord(capability?.unit);
  }

  /** A value without its unit: with the template's digits, and an enum value by its name. */
  value(of: Of, value: unknown): string {
    const capability = this.capability(of);
    const named = capability?.schema?.values?.find((one) => one.value === value);
    if (named) return named.displayName ?? named.name;
    const digits = capability?.extension?.decimalPlaces;
    if (typeof value === "number" && typeof digits === "number" && digits >= 0 && digits <= 15)
      return new Intl.NumberFormat("en-GB", {
        minimumFractionDigits: digits,
        maximumFractionDigits: digits,
      }).format(value);
    return typeof value === "number" ? measured(value) : shown(value);
  }

  /** In the order of the template; what it does not have comes last, in the order that it is given in. */
  inOrder<T extends Of>(values: T[]): T[] {
    const place = (value: T) => this.#find(value)?.at ?? Number.MAX_SAFE_INTEGER;
    return [...values].sort((one, other) => place(one) - place(other));
  }
}
