// Which page an address shows, and which of them load later: charts, editor and administration are not part of the first load.

import type { Component } from "svelte";

export type PageProps = { id?: string; tab?: string };
export type Area =
  | "overview"
  | "devices"
  | "gateways"
  | "manifests"
  | "templates"
  | "audit"
  | "administration";
export type Found = {
  area: Area | null;
  props: PageProps;
  load: () => Promise<{ default: Component<PageProps> }>;
};

export const AREAS: {
  area: Area;
  path: string;
  word: string;
  icon: string;
  key: string;
  role?: "administrator";
}[] = [
  { area: "overview", path: "/", word: "Overview", icon: "overview", key: "o" },
  { area: "devices", path: "/devices", word: "Devices", icon: "device", key: "d" },
  { area: "gateways", path: "/gateways", word: "Gateways", icon: "gateway", key: "g" },
  { area: "manifests", path: "/manifests", word: "Manifests", icon: "manifest", key: "m" },
  { area: "templates", path: "/templates", word: "Templates", icon: "template", key: "t" },
  { area: "audit", path: "/audit", word: "Audit", icon: "audit", key: "a" },
  { area: "administration", path: "/administration", word: "Administration", icon: "admin", key: "s" },
];

type Loaded = Promise<{ default: Component<PageProps> }>;
const as = (loading: Promise<unknown>) => loading as Loaded;

export function find(segments: string[]): Found {
  const [first = "", id, tab] = segments;
  const one = (area: Area, load: () => Promise<unknown>): Found => {
    const props: PageProps = {};
    if (id !== undefined) props.id = id;
    if (tab !== undefined) props.tab = tab;
    return { area, props, load: () => as(load()) };
  };
  switch (first) {
    case "":
      return one("overview", () => import("../pages/Overview.svelte"));
    case "devices":
      return id
        ? one("devices", () => import("../device/Device.svelte"))
        : one("devices", () => import("../pages/Devices.svelte"));
    case "gateways":
      return id
        ? one("gateways", () => import("../gateway/Gateway.svelte"))
        : one("gateways", () => import("../pages/Gateways.svelte"));
    case "manifests":
      return id
        ? one("manifests", () => import("../pages/Manifest.svelte"))
        : one("manifests", () => import("../pages/Manifests.svelte"));
    case "templates":
      return id
        ? one("templates", () => import("../templates/Template.svelte"))
        : one("templates", () => import("../templates/Templates.svelte"));
    case "audit":
      return one("audit", () => import("../pages/Audit.svelte"));
    case "administration":
      return one("administration", () => import("../admin/Administration.svelte"));
    default:
      return { area: null, props: {}, load: () => as(import("../pages/NotFound.svelte")) };
  }
}
