// Keeps long calls from taking all threads that serve calls.

#ifndef SERVER_STREAM_LIMITER_H_
#define SERVER_STREAM_LIMITER_H_

#include <atomic>
#include <cstdint>
#include <utility>

namespace mmud {

// Streams and waits take a place while they last. Thread-safe.
class StreamLimiter {
 public:
  // Gives its place back when it goes. Movable.
  class Place {
   public:
    Place() = default;
    explicit Place(std::atomic<int64_t>* taken) : taken_(taken) {}
    Place(Place&& other) noexcept
        : taken_(std::exchange(other.taken_, nullptr)) {}
    Place& operator=(Place&&) = delete;
    ~Place() {
      if (taken_ != nullptr) taken_->fetch_sub(1, std::memory_order_relaxed);
    }
    // False: there was no place left.
    explicit operator bool() const { return taken_ != nullptr; }

   private:
    std::atomic<int64_t>* taken_ = nullptr;
  };

  explicit StreamLimiter(int64_t places) : places_(places) {}

  Place TryTake() {
    if (taken_.fetch_add(1, std::memory_order_relaxed) < places_) {
      return Place(&taken_);
    }
    taken_.fetch_sub(1, std::memory_order_relaxed);
    return Place();
  }

  int64_t places() const { return places_; }

 private:
  const int64_t places_;
  std::atomic<int64_t> taken_{0};  // relaxed: only a count
};

}  // namespace mmud

#endif  // SERVER_STREAM_LIMITER_H_
