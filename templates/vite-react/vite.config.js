import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  server: {
    // The preview is reached under an address and a port that are chosen when the workspace starts. Vite's client takes
    // both from the page's own address, so hot reload needs no port here; it must not be set.
    allowedHosts: true,
    host: "0.0.0.0",
    port: 4321,
    strictPort: true,
  },
});
