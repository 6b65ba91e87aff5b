import { createServer } from "node:http";

const port = Number(process.env.PORT ?? 4321);
const host = process.env.HOST ?? "0.0.0.0";
const largestBody = 1024 * 1024;

/** Route by route: method and path to what answers. */
const routes = {
  "GET /": () => ({ message: "Edit server.js and save: the server starts again.", routes: Object.keys(routes) }),
  "GET /health": () => ({ status: "ok", uptimeSeconds: process.uptime() }),
  "POST /echo": async (request) => ({ echo: JSON.parse(await readBody(request)) }),
};

async function readBody(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > largestBody) throw Object.assign(new Error("the body is too large"), { status: 413 });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function answer(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(`${JSON.stringify(body)}\n`);
}

const server = createServer(async (request, response) => {
  const path = request.url.split("?")[0];
  const route = routes[`${request.method} ${path}`];
  if (!route) return answer(response, 404, { error: `there is no ${request.method} ${path}` });
  try {
    answer(response, 200, await route(request));
  } catch (error) {
    answer(response, error.status ?? (error instanceof SyntaxError ? 400 : 500), { error: error.message });
  }
});

server.listen(port, host, () => console.log(`listening on http://${host}:${port}`));

process.on("SIGTERM", () => server.close(() => process.exit(0)));
