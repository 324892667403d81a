import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// A page of the console may hold no inline script or style (its Content-Security-Policy), so nothing here inlines.
export default defineConfig({
  plugins: [svelte()],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    manifest: true,
    reportCompressedSize: false,
    sourcemap: false,
    rolldownOptions: { checks: { pluginTimings: false } },
  },
  server: {
    port: 5173,
    proxy: { "/api": "http://127.0.0.1:8099", "/openapi.json": "http://127.0.0.1:8099" },
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
