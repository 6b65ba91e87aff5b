// Serves the working directory on HOST and PORT: what a folder with an index.html and nothing else needs.
const fs = require("fs"), http = require("http"), path = require("path");
const types = {
  ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8", ".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png",
  ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".avif": "image/avif",
  ".ico": "image/x-icon", ".txt": "text/plain; charset=utf-8", ".xml": "application/xml", ".wasm": "application/wasm",
  ".woff": "font/woff", ".woff2": "font/woff2", ".mp3": "audio/mpeg", ".mp4": "video/mp4", ".pdf": "application/pdf",
};
const root = fs.realpathSync(process.cwd());
const refuse = (response, status) => response.writeHead(status, { "content-type": "text/plain" }).end(http.STATUS_CODES[status] + "\n");
http.createServer((request, response) => {
  if (request.method !== "GET" && request.method !== "HEAD") return refuse(response, 405);
  let file, stat;
  try {
    const wanted = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    file = fs.realpathSync(path.join(root, wanted));
    if (file !== root && !file.startsWith(root + path.sep)) return refuse(response, 404);
    stat = fs.statSync(file);
    if (stat.isDirectory()) {
      if (!wanted.endsWith("/")) return response.writeHead(301, { location: encodeURI(wanted).replace(/^\/+/, "/") + "/" }).end();
      file = path.join(file, "index.html");
      stat = fs.statSync(file);
    }
  } catch (error) {
    return refuse(response, error instanceof URIError || error.code === "ERR_INVALID_URL" ? 400 : 404);
  }
  if (!stat.isFile()) return refuse(response, 404);
  response.writeHead(200, {
    "content-type": types[path.extname(file).toLowerCase()] || "application/octet-stream",
    "content-length": stat.size, "cache-control": "no-cache", "last-modified": stat.mtime.toUTCString(),
  });
  if (request.method === "HEAD") return response.end();
  fs.createReadStream(file, { end: Math.max(stat.size - 1, 0) }).on("error", () => response.destroy()).pipe(response);
}).listen(Number(process.env.PORT), process.env.HOST, () => console.log(`serving ${root} on port ${process.env.PORT}`));
