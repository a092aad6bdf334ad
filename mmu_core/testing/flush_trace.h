// The remote TLB flushes that are issued while a trace exists.

#ifndef MMU_CORE_TESTING_FLUSH_TRACE_H_
#define MMU_CORE_TESTING_FLUSH_TRACE_H_

#include <functional>
#include <vector>

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/tlb/tlb_flush.h"

namespace mmu::testing {

// A process can have at most one, and only one thread may flush meanwhile. It
// defines AlterFlush (tlb/tlb_flush_batch.h), so its users cannot define it.
class FlushTrace {
 public:
  // `at_flush`, if given, runs at each flush, before any vCPU hears of it.
  explicit FlushTrace(std::function<void(const TlbFlush&)> at_flush = nullptr);
  ~FlushTrace();
  FlushTrace(const FlushTrace&) = delete;
  FlushTrace& operator=(const FlushTrace&) = delete;

  const std::vector<TlbFlush>& flushes() const { return flushes_; }
  // What each of them covers.
  std::vector<GfnRange> gfns() const;

  // For AlterFlush.
  static void Note(const TlbFlush& flush);

 private:
  const std::function<void(const TlbFlush&)> at_flush_;
  std::vector<TlbFlush> flushes_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_FLUSH_TRACE_H_
