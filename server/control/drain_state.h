// Whether the daemon is shutting down.

#ifndef SERVER_CONTROL_DRAIN_STATE_H_
#define SERVER_CONTROL_DRAIN_STATE_H_

#include <atomic>

namespace mmud {

// Goes from serving to draining once and never back. Thread-safe.
class DrainState {
 public:
  void Begin() { draining_.store(true, std::memory_order_release); }
  bool is_draining() const { return draining_.load(std::memory_order_acquire); }

 private:
  // Begin stores with release: a thread that sees the drain sees everything
  // done before it.
  std::atomic<bool> draining_{false};
};

}  // namespace mmud

#endif  // SERVER_CONTROL_DRAIN_STATE_H_
