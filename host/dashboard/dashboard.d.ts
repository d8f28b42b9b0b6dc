/** The dashboard's page in one piece, and the Content-Security-Policy that fits it; made by the build (build/dashboard.mjs). */
declare module 'kcptun-dashboard' {
  export const html: string
  export const csp: string
}
