/* Entry of the checked build: the exports of the module, and those of its checks (memory/guard.ts). */
export * from './index'
export {
  check_range,
  checkAccess,
  checkedCopy,
  checkedFill,
  edge_slots,
  edges_ptr,
  fault_ptr,
  free,
  heap_ptr,
  hitEdge,
  take,
} from './memory/guard'
