import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  root: 'app',
  // Relative, so that the page may be served below any path.
  base: './',
  plugins: [react()],
  worker: { format: 'es' },
  build: {
    outDir: '../dist',
    emptyOutDir: true,
    target: ['chrome120', 'firefox128', 'safari17'],
    // A data: URL would not pass the page's Content-Security-Policy.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 1200,
  },
  server: { host: '127.0.0.1' },
  test: { root: '.', include: ['test/**/*.test.{ts,tsx}'], environment: 'node' },
});
