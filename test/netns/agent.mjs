// Opens sockets in its own network namespace for the test that started it (testkit/netns.ts). A socket stays in the
// namespace where it was created, whichever process holds it: each one is passed to the test and used there like any
// other.
//
// Received messages: { id, action: 'dial', host, port }, { id, action: 'listen', host, port }, { id, action: 'close', port },
// { id, action: 'get', url }, { id, action: 'udp', host, port }. Sent messages: { id, error?, port?, body? }, with the
// socket of a dial or udp, and { accepted: port } with each accepted connection.

import { createSocket, Socket as UdpSocket } from 'node:dgram'
import { get } from 'node:http'
import { createServer, Socket } from 'node:net'

/** @typedef {{ id: number, action: string, host: string, port: number, url: string }} Order */

/** @type {Map<number, import('node:net').Server>} */
const servers = new Map()

/**
 * @param {object} message
 * @param {Socket | UdpSocket} [socket] passed on with the message
 */
function send(message, socket) {
  process.send?.(message, socket, {}, () => {
    // a TCP socket is moved to the other process, a UDP socket is copied
    if (socket instanceof UdpSocket) socket.close()
  })
}

/** @type {Record<string, (order: Order) => void>} */
const actions = {
  dial({ id, host, port }) {
    const socket = new Socket({ allowHalfOpen: true })
    // this process reads no bytes
    socket.pause()
    const refused = (/** @type {Error} */ error) => send({ id, error: error.message })
    socket.once('error', refused)
    socket.connect({ host, port, noDelay: true }, () => {
      socket.off('error', refused)
      send({ id }, socket)
    })
  },

  listen({ id, host, port: wanted }) {
    const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (socket) => {
      send({ accepted: port }, socket)
    })
    let port = 0
    server.once('error', (error) => send({ id, error: error.message }))
    server.listen({ port: wanted, host, backlog: 1024 }, () => {
      const address = server.address()
      port = address !== null && typeof address === 'object' ? address.port : 0
      servers.set(port, server)
      send({ id, port })
    })
  },

  udp({ id, host, port }) {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
    socket.once('error', (error) => send({ id, error: error.message }))
    socket.bind(port, host, () => send({ id }, socket))
  },

  close({ id, port }) {
    servers.get(port)?.close()
    servers.delete(port)
    send({ id })
  },

  get({ id, url }) {
    const request = get(url, { agent: false, timeout: 5000 }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk) => {
        body += chunk
      })
      response.once('error', (error) => send({ id, error: error.message }))
      response.once('end', () => {
        send(response.statusCode === 200 ? { id, body } : { id, error: `${url}: status ${response.statusCode}` })
      })
    })
    request.once('timeout', () => request.destroy(new Error(`${url}: no answer`)))
    request.once('error', (error) => send({ id, error: error.message }))
  },
}

process.on('message', (/** @type {Order} */ order) => actions[order.action]?.(order))
process.on('disconnect', () => process.exit())
send({ id: 0 })
