/** What the benchmarks print about the peer's build and the ciphers of both sides. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { BUILD_VARIABLE, buildOf, cmakeFlags, describeCalibration, sodiumOf } from '../../testkit/calibration.ts'

const CACHE = `# comment
CMAKE_BUILD_TYPE:STRING=Release
//Flags
CMAKE_C_FLAGS:STRING=-fno-strict-aliasing -march=native
CMAKE_C_FLAGS-ADVANCED:INTERNAL=1
CMAKE_C_FLAGS_DEBUG:STRING=-g
CMAKE_C_FLAGS_RELEASE:STRING=-O3 -DNDEBUG
`

const test = suite('testkit/calibration')

test('build type and flags are those of the build type in use', () => {
  assert.is(cmakeFlags(CACHE), 'Release -fno-strict-aliasing -march=native -O3 -DNDEBUG')
  assert.is(cmakeFlags(CACHE.replace('=Release', '=Debug')), 'Debug -fno-strict-aliasing -march=native -g')
  assert.is(cmakeFlags('CMAKE_BUILD_TYPE:STRING=\nCMAKE_C_FLAGS:STRING=\n'), 'no build type')
  assert.match(cmakeFlags(`${CACHE}CMAKE_INTERPROCEDURAL_OPTIMIZATION:BOOL=ON\n`), / LTO$/)
})

test('the build directory is found above the program; the environment has priority; otherwise it is unknown', () => {
  const files = new Map([['/src/build/CMakeCache.txt', CACHE]])
  const read = (path: string): string | undefined => files.get(path)
  assert.match(buildOf('/src/build/bin/kcptun-libev', {}, read), /^Release /)
  assert.match(buildOf('/src/build/kcptun-libev', { [BUILD_VARIABLE]: '' }, read), /^Release /)
  assert.is(buildOf('/src/build/bin/kcptun-libev', { [BUILD_VARIABLE]: '-O2, Debian' }, read), '-O2, Debian')
  assert.match(buildOf('/usr/bin/kcptun-libev', {}, read), /^unknown .*KCPTUN_LIBEV_BUILD/)
})

test('the libsodium of a program is the one that it is linked with', () => {
  const ldd = '\tlibev.so.4 => /lib/libev.so.4 (0x1)\n\tlibsodium.so.23 => /opt/lib/libsodium.so.23 (0x2)\n'
  assert.is(sodiumOf(ldd), '/opt/lib/libsodium.so.23')
  assert.is(sodiumOf('\tstatically linked\n'), undefined)
})

test('the heading names the build, each figure and what is not known', () => {
  const text = describeCalibration({
    method: 'aes256gcm',
    plainBytes: 1400,
    peerBuild: 'Release -O3',
    aead: {
      node: { seal: 812.4, open: 790.6, provider: 'OpenSSL 3.0' },
      libsodium: { unknown: 'no such library' },
    },
  })
  assert.match(text, /Release -O3\n/)
  assert.match(text, /aes256gcm.* 1400 bytes.*node 812 \+ 791 \(OpenSSL 3\.0\); libsodium unknown \(no such library\)/)
})

test.run()
