/** The release engine, inlined by the build (build/core-wasm-plugin.mjs). */
declare module 'kcptun-core-wasm' {
  const base64: string
  export default base64
}
