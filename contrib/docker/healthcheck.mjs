// Exits with status 0 if the tunnel's HTTP server answers HEALTH_URL with 200.
const url = process.env.HEALTH_URL ?? 'http://127.0.0.1:5280/healthy'
const answer = await fetch(url, { signal: AbortSignal.timeout(4000) }).catch((error) => error)
if (answer instanceof Error || answer.status !== 200) {
  console.error(`${url}: ${answer instanceof Error ? (answer.cause ?? answer) : `status ${answer.status}`}`)
  process.exit(1)
}
process.exit(0)
