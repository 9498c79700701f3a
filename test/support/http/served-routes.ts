import { type AppDependencies, createApp } from "@millrace/api/app.js";

export interface ServedRoute {
  method: string;
  /** In Express's form, such as `/v1/models/:model`. */
  path: string;
}

interface Layer {
  route?: { path: string; methods: Record<string, boolean> };
  handle?: { stack?: Layer[] };
}

/** Every route of the API's router, in its order, without those of the queue page. */
export function servedRoutes(): ServedRoute[] {
  // Building the routes uses none of the dependencies, so an empty object will do.
  const idle = {
    trustProxy: 0,
    crossOrigin: null,
    tracing: null,
    limits: null,
    keyPrefix: "none",
    metrics: {},
    log: {},
  };
  const app = createApp(idle as unknown as AppDependencies);
  const routesOf = ({ handle, route }: Layer): ServedRoute[] => {
    if (route === undefined) return (handle?.stack ?? []).flatMap(routesOf);
    const methods = Object.keys(route.methods).filter((method) => method !== "_all");
    return methods.map((method) => ({ method: method.toUpperCase(), path: route.path }));
  };
  return (app as unknown as { router: { stack: Layer[] } }).router.stack.flatMap(routesOf);
}
