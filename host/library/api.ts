/**
 * The types of the library. They name no runtime: streams and signals are those that the types of the importing program
 * have, or their structure where it has none.
 */

/// <reference lib="esnext.disposable" preserve="true" />

/** The instance type of a global class of the importing program, or `Otherwise` where its types do not have it. */
type Global<Name extends string, Otherwise> =
  typeof globalThis extends Record<Name, { readonly prototype: infer Type }> ? Type : Otherwise

/** AbortSignal. */
export type Signal = Global<
  'AbortSignal',
  {
    readonly aborted: boolean
    readonly reason: unknown
    addEventListener(type: 'abort', listener: () => void): void
    removeEventListener(type: 'abort', listener: () => void): void
  }
>

/** A ReadableStream whose chunks are Uint8Array. */
export type Readable = Global<'ReadableStream', object>
/** A WritableStream that takes Uint8Array and other views of bytes. */
export type Writable = Global<'WritableStream', object>

/** Encryption methods of the wire protocol. */
export type Method = 'xchacha20poly1305_ietf' | 'xsalsa20poly1305' | 'chacha20poly1305_ietf' | 'aes256gcm'

/** Receives the lines of the log; `console` is one. */
export interface Logger {
  /** Errors, and what ends the endpoint. */
  error(text: string): void
  /** What needs attention. */
  warn(text: string): void
  /** Sockets, addresses, the state of the peer. */
  info(text: string): void
  /** Single streams and more, with `loglevel` above 4. */
  debug(text: string): void
}

/** Limits of payload: streams that want more get equal shares, those that want less do not wait for them. */
export interface RateOptions {
  /** Of all streams together, to the peers, Mbit/s; 0: unlimited. */
  readonly up?: number | undefined
  /** Of all streams together, from the peers, Mbit/s; 0: unlimited. */
  readonly down?: number | undefined
  /** Of each stream, to the peer, Mbit/s; 0: unlimited. */
  readonly session_up?: number | undefined
  /** Of each stream, from the peer, Mbit/s; 0: unlimited. */
  readonly session_down?: number | undefined
}

/** KCP parameters, in the units of docs/configuration.md. What is not set is chosen automatically. */
export interface KcpOptions {
  /** Largest IP packet, bytes. Unset: what the path takes, from 1400 up to 1500 (docs/protocol.md 4.1). */
  readonly mtu?: number | undefined
  /** Send window, segments. */
  readonly sndwnd?: number | undefined
  /** Receive window, segments. */
  readonly rcvwnd?: number | undefined
  /** Speed of the retransmission timer, 0 to 2. */
  readonly nodelay?: number | undefined
  /** Flush interval, ms. */
  readonly interval?: number | undefined
  /** Duplicate ACKs that cause a retransmission. */
  readonly resend?: number | undefined
  /** 1: no congestion control. */
  readonly nc?: number | undefined
  /** When segments are sent, 0 to 2. */
  readonly flush?: number | undefined
  /** Whether segments may be sent twice before they count as lost. Default true. */
  readonly redundancy?: boolean | undefined
}

/** The UDP socket. */
export interface UdpSocketOptions {
  /** SO_REUSEPORT. */
  readonly reuseport?: boolean | undefined
  /** SO_SNDBUF, bytes. */
  readonly sndbuf?: number | undefined
  /** SO_RCVBUF, bytes. */
  readonly rcvbuf?: number | undefined
  /** System calls in batches, or the sockets of the runtime. */
  readonly path?: 'auto' | 'fast' | 'portable' | undefined
  /** Whether datagrams are merged when sent. */
  readonly gso?: 'auto' | 'off' | undefined
  /** Whether datagrams are merged when received. */
  readonly gro?: 'auto' | 'off' | undefined
}

/** The key of a user or device, one of `keys`. */
export interface UserKey {
  /** 1 to 64 letters, digits and characters of ._-, another one for each key. */
  readonly name: string
  /** Pre-shared key, 32 bytes in Base64: see generatePsk. */
  readonly psk?: string | undefined
  /** A password, in place of `psk`. */
  readonly password?: string | undefined
  /** Until when it is accepted: `2027-12-31`, or a time with its zone. */
  readonly not_after?: string | undefined
  /** Server: limit of its sessions. */
  readonly max_sessions?: number | undefined
}

/** Options of both ends. All but the first and the last ones are configuration keys: docs/configuration.md. */
export interface CommonOptions {
  /** Local UDP address, `kcp_bind`: `host:port`, `:port`. */
  readonly bind?: string | undefined
  /** Pre-shared key, 32 bytes in Base64: see generatePsk. */
  readonly psk?: string | undefined
  /** A password, in place of `psk`. */
  readonly password?: string | undefined
  /** Keys by name, in place of `psk`: a server accepts each, a client uses the first. */
  readonly keys?: readonly UserKey[] | undefined
  /** Default xchacha20poly1305_ietf; null: nothing is encrypted or authenticated. */
  readonly method?: Method | null | undefined
  /** UDP address of a rendezvous server, for ends behind NAT. */
  readonly rendezvous_server?: string | undefined
  /** The name by which the rendezvous server matches the two ends. */
  readonly service_id?: string | undefined
  /** TCP address of the monitoring server. */
  readonly http_listen?: string | undefined
  /** Bearer token of the monitoring server. */
  readonly http_token?: string | undefined
  /** Network interface of the UDP socket. */
  readonly netdev?: string | undefined
  /** SO_MARK of the UDP socket. */
  readonly fwmark?: number | undefined
  /** Differentiated services code point of the datagrams. */
  readonly dscp?: number | undefined
  /** Obfuscator. */
  readonly obfs?: string | undefined
  /** KCP parameters. */
  readonly kcp?: KcpOptions | undefined
  /** The UDP socket. */
  readonly udp?: UdpSocketOptions | undefined
  /** Limits of the rate of the streams. */
  readonly rate?: RateOptions | undefined
  /** Silence after which a session ends, s. */
  readonly timeout?: number | undefined
  /** How long an ended session waits for the other end, s. */
  readonly linger?: number | undefined
  /** Interval of pings, s; 0: none. */
  readonly keepalive?: number | undefined
  /** How long the number of an ended session is not used again, s. */
  readonly time_wait?: number | undefined
  /** Memory ceiling of the engine, MiB. */
  readonly memory?: number | undefined
  /** Most sessions at a time. */
  readonly max_sessions?: number | undefined
  /** Which first flights a server confirms. */
  readonly replay?: 'auto' | 'strict' | undefined
  /** false: no native code is loaded from now on, in the whole process. */
  readonly native?: boolean | undefined
  /** Which lines `logger` gets, 0 to 8. */
  readonly loglevel?: number | undefined
  /** Default: nothing is logged. */
  readonly logger?: Logger | undefined
  /** Closes the endpoint at once when aborted. */
  readonly signal?: Signal | undefined
  /** Carries the datagrams in place of UDP. */
  readonly transport?: DatagramTransport | undefined
}

/** Options of createClient. */
export interface ClientOptions extends CommonOptions {
  /** UDP address of the server, `kcp_connect`: `host:port`; or of several servers. */
  readonly server?: string | readonly string[] | undefined
  /** Which of several servers that answer gets a new stream. Default failover. */
  readonly strategy?: 'failover' | 'least_rtt' | 'round_robin' | undefined
  /** `hold`: streams wait for a silent peer until they time out; `reset`: they fail after 3 s. Default reset. */
  readonly when_down?: 'hold' | 'reset' | undefined
}

/** Options of createServer. A server without rendezvous server needs `bind`. */
export interface ServerOptions extends CommonOptions {}

/** Options of createTunnel. */
export interface TunnelOptions {
  /** A configuration file, by name or content (JSON or an object), as for the program. */
  readonly config: string | Uint8Array | object
  /** Default: nothing is logged. */
  readonly logger?: Logger | undefined
  /** Closes the tunnel at once when aborted. */
  readonly signal?: Signal | undefined
}

/**
 * Something that carries datagrams between two or more endpoints: unreliable and unordered is enough, message
 * boundaries are required.
 */
export interface DatagramTransport {
  /** Bytes of the largest datagram that it carries, at least 252. Default 1352; more than 1452 are not used. */
  readonly maxDatagramSize?: number
  /** Called once, before `send`. What it throws, or rejects with, is the error of createClient or createServer. */
  open(receiver: DatagramReceiver): void | Promise<void>
  /**
   * Sends a datagram.
   * @param data valid during the call only: copy what is to be kept
   * @param peer where to, as given to `DatagramReceiver.datagram`; '' from a client to its server
   * @returns false to be asked no further until `DatagramReceiver.writable`. This datagram was taken.
   * @throws what is thrown is logged, and the datagram counts as lost
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: most functions of users return nothing
  send(data: Uint8Array, peer: string): boolean | void
  /** Called once, when the endpoint closes; not after `DatagramReceiver.close`. */
  close(): void
}

/** Callbacks of an endpoint for its DatagramTransport. None of them throws. */
export interface DatagramReceiver {
  /**
   * A datagram arrived. It is read during the call.
   * @param peer the identity of its sender. A server tells its clients apart by it: a client
   * that appears under another identity is the same one on another path, and its streams follow once it answers there.
   * A client ignores it.
   */
  datagram(data: Uint8Array, peer?: string): void
  /** `send` accepts datagrams again. */
  writable(): void
  /** A problem that does not end the transport; it is logged. */
  error(error: Error): void
  /** The transport ended: the endpoint closes, with the error if there is one. */
  close(error?: Error): void
}

/** One direction or more of a stream, as a pair of WHATWG streams in the shape of the WinterTC sockets API. */
export interface WebStream {
  /** Bytes from the peer; ends with its direction. */
  readonly readable: Readable
  /** Bytes for the peer; close it to end this direction. */
  readonly writable: Writable
  /** Fulfilled when the peer has answered; rejects with the error that ended the stream before. */
  readonly opened: Promise<StreamInfo>
  /** Fulfilled when both directions ended, or by close(); rejects with the error that ended the stream otherwise. */
  readonly closed: Promise<void>
  /**
   * Cancels what is read, and aborts what is written unless the application has closed it: the peer gets a reset then.
   * Fulfils `closed`. Never rejects.
   */
  close(): Promise<void>
}

/** What is known of an open stream. */
export interface StreamInfo {
  /** The peer's address, `host:port`, or its identity in a DatagramTransport. */
  readonly remoteAddress: string | undefined
}

/** The part of node:stream's Duplex that does not depend on its types; `kcptun-wasm/node` has the whole type. */
export interface DuplexStream {
  /** The peer's address, `host:port`, or its identity in a DatagramTransport. */
  readonly remoteAddress: string | undefined
  readonly destroyed: boolean
  // biome-ignore lint/suspicious/noExplicitAny: the events of node:stream
  on(event: string, listener: (...values: any[]) => void): this
  // biome-ignore lint/suspicious/noExplicitAny: the events of node:stream
  once(event: string, listener: (...values: any[]) => void): this
  // biome-ignore lint/suspicious/noExplicitAny: the events of node:stream
  off(event: string, listener: (...values: any[]) => void): this
  write(chunk: Uint8Array | string): boolean
  end(chunk?: Uint8Array | string): this
  destroy(error?: Error): this
  pause(): this
  resume(): this
  // biome-ignore lint/suspicious/noExplicitAny: any writable stream
  pipe(destination: any): any
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array>
}

/** A consistent view of counters and sessions, with the names of /stats.json (docs/api.md). */
export interface Stats {
  readonly uptime_ms: number
  /** What GET /ready answers. */
  readonly ready: boolean
  readonly health: string
  readonly counters: Readonly<Record<string, number>>
  /** null: never */
  readonly gauges: Readonly<Record<string, number | null>>
  readonly host: Readonly<Record<string, number>>
  /** Only of a server with several keys. */
  readonly keys?: readonly KeyFigures[]
  readonly sessions: readonly SessionFigures[]
}

/** One of several keys, as in /stats.json. */
export interface KeyFigures {
  readonly name: string
  /** Open sessions. */
  readonly sessions: number
  /** null: no limit of its own */
  readonly max_sessions: number | null
  readonly sessions_opened: number
  readonly sessions_refused: number
  readonly tcp_read_bytes: number
  readonly tcp_written_bytes: number
  readonly datagrams_received: number
  readonly datagrams_sent: number
  /** null: never */
  readonly last_seen_seconds: number | null
  readonly not_after: string | null
}

/** One session, as in /stats.json. */
export interface SessionFigures {
  readonly conv: string
  readonly state: string
  readonly peer: string
  /** Whose key it has, of a server with several. */
  readonly user?: string
  readonly age_seconds: number
  readonly idle_seconds: number
  readonly rtt_ms: number | null
  readonly rttvar_ms: number | null
  readonly rto_ms: number | null
  readonly waitsnd_segments: number
  readonly sndwnd_segments: number
  readonly rmtwnd_segments: number
  readonly cwnd_segments: number
  readonly retransmitted_segments: number
  readonly pace_segments_per_second: number
  readonly base_loss: number
  readonly tcp_read_bytes: number
  readonly tcp_written_bytes: number
}

/** Events of an endpoint and the values that its listeners get. */
export interface EndpointEvents {
  /** Client: the server answers, for the first time or again. `rtt` in ms. */
  up: [{ readonly rtt: number }]
  /** Client: the server does not answer, from the start or any more. */
  down: [reason: string]
  /** The path changed: the new address of the peer, or of a client's own socket. */
  migrate: [address: string]
  /** It closed; with the error that ended it, if there is one. */
  close: [error: Error | undefined]
}

/** What clients, servers and tunnels have in common. */
export interface Running extends AsyncDisposable {
  /** Local UDP address as `host:port`; undefined with a DatagramTransport. */
  readonly address: string | undefined
  /** Fulfilled when it is closed; rejects with the error that ended it, if there is one. */
  readonly closed: Promise<void>
  /** Counters and sessions at this moment. @throws ClosedError */
  stats(): Stats
  /** Adds a listener. It is called in a later microtask. */
  on<Name extends keyof EndpointEvents>(event: Name, listener: (...values: EndpointEvents[Name]) => void): this
  /** Adds a listener for one event. */
  once<Name extends keyof EndpointEvents>(event: Name, listener: (...values: EndpointEvents[Name]) => void): this
  /** Removes a listener. */
  off<Name extends keyof EndpointEvents>(event: Name, listener: (...values: EndpointEvents[Name]) => void): this
  /**
   * Closes. Streams that the application has not ended are reset; what was written to streams that it ended is still
   * delivered, for at most `linger` seconds. Never rejects.
   */
  close(): Promise<void>
  /** Keeps the event loop alive, as from the start. */
  ref(): this
  /** Lets the event loop end while it is open. TCP ports of a tunnel and of the monitoring server still keep it. */
  unref(): this
}

/** A client, from createClient. */
export interface Client<Stream = DuplexStream> extends Running {
  /**
   * Opens a stream and waits for the server's answer.
   * @throws RefusedError, ResetError, ClosedError, or the reason of the signal, which counts until the stream is open
   */
  connect(options?: { readonly signal?: Signal | undefined }): Promise<Stream>
  /**
   * Opens a stream at once. Bytes can be written before the server has answered.
   * @throws RefusedError, ClosedError
   */
  open(): WebStream
}

/** A server, from createServer. */
export interface Server extends Running {}

/** A running program, from createTunnel. */
export interface Tunnel extends Running {
  /** Client: the address that applications connect to, or with udp_listen send to. */
  readonly listening: string | undefined
  /** The address of the monitoring server. */
  readonly monitoring: string | undefined
  /**
   * Applies a changed configuration, as SIGHUP does; without argument, the file is read again.
   * @throws ConfigError, StartError; nothing is changed then
   */
  reload(config?: string | Uint8Array | object): Promise<void>
}

/** Serves a stream that a client opened. If it throws, the stream is reset. */
export type StreamHandler<Stream = DuplexStream> = (stream: Stream) => unknown

/** The functions of the library. */
export interface Library<Stream = DuplexStream> {
  /**
   * Starts a client. Resolves once its socket is open, whether the server answers or not: see `up`.
   * @throws ConfigError, StartError, NotAvailable
   */
  createClient(options: ClientOptions): Promise<Client<Stream>>
  /**
   * Starts a server.
   * @throws ConfigError, StartError, NotAvailable
   */
  createServer(options: ServerOptions, onStream: StreamHandler<Stream>): Promise<Server>
  /**
   * Runs what the program runs for a configuration file, in this process: a client or server for TCP, or a rendezvous
   * server.
   * @throws ConfigError, StartError, NotAvailable
   */
  createTunnel(options: TunnelOptions): Promise<Tunnel>
  /** A new random key, as from `--genpsk`. */
  generatePsk(): string
}
