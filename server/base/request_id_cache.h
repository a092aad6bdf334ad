// Remembers the answers of mutating calls by their request_id (AIP-155).

#ifndef SERVER_BASE_REQUEST_ID_CACHE_H_
#define SERVER_BASE_REQUEST_ID_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"

namespace mmud {

// OK for a UUID of version 4 in its usual form; INVALID_REQUEST_ID otherwise.
absl::Status CheckRequestId(absl::string_view request_id);

// The first call with an id computes the answer. Calls with the same id and the
// same request get that answer for ten minutes, and wait for it while it is
// being computed.
//
// Only answers are kept. A call that fails, for example at its own deadline or
// because its caller left, fails alone: the next call with the id, waiting or
// new, computes afresh. That is safe even if the failed call did a part of its
// work (a clear cancelled between two steps, a StartDirtyLog given up while it
// splits): the part stays done, and repeating it changes nothing.
//
// Work that goes on after its call keeps the call's turn (Turn): calls with the
// id wait for the end of the work, and get its answer.
//
// Only a hash of each request is kept. It serves to detect an id that was used
// for two different requests, which is a mistake of the caller. If the hashes
// of the two are equal as well (1 in 2^64), the mistake goes unnoticed and the
// caller gets the first answer. Answers are found by id, never by hash.
// Thread-safe.
class RequestIdCache {
 public:
  struct Options {
    absl::Duration time_to_live = absl::Minutes(10);
    // If the answers take more bytes than this, the oldest are dropped. Each
    // answer counts its own size and kBytesPerEntry.
    size_t max_bytes = size_t{64} << 20;
    std::function<mmu::MonotonicTime()> now = [] {
      return mmu::MonotonicTime::Now();
    };
  };

  // Overhead of an answer beyond its own bytes: its id, twice, and its place in
  // the containers.
  static constexpr size_t kBytesPerEntry = 384;

  RequestIdCache() : RequestIdCache(Options()) {}
  explicit RequestIdCache(Options options);

  // The right to compute the answer of one id. If it is destroyed without an
  // answer, the right passes to the next call. Thread-safe. The cache outlives
  // it.
  class Turn {
   public:
    Turn(RequestIdCache& cache, std::string id)
        : cache_(cache), id_(std::move(id)) {}
    ~Turn() { cache_.EndTurn(id_, answered_); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    // Sets the answer; only the first call has an effect.
    void Answer(const std::string& answer) {
      cache_.AnswerTurn(id_, answer, &answered_);
    }

   private:
    RequestIdCache& cache_;
    const std::string id_;
    bool answered_ = false;  // guarded by the cache's mu_
  };
  using SharedTurn = std::shared_ptr<Turn>;

  // Returns the answer of `id`, computed or remembered. `request` is everything
  // that makes two requests the same, including the method's name. With an
  // empty id it only computes. `compute` is called on this thread, at most
  // once, while no other call with this id computes. A waiting call calls
  // `keep_waiting` now and then; if that returns an error, the call gives up
  // and returns the error. INVALID_REQUEST_ID; REQUEST_ID_REUSED if the id came
  // with another request.
  absl::StatusOr<std::string> Run(
      absl::string_view request_id, absl::string_view request,
      const std::function<absl::Status()>& keep_waiting,
      const std::function<absl::StatusOr<std::string>()>& compute);

  // As Run, for work that goes on after its call has given up: `compute` gets
  // the turn, null if the id is empty, and passes it to the work. At its end
  // the work passes the turn the answer that `compute` would have returned.
  absl::StatusOr<std::string> RunWithTurn(
      absl::string_view request_id, absl::string_view request,
      const std::function<absl::Status()>& keep_waiting,
      const std::function<absl::StatusOr<std::string>(SharedTurn)>& compute);

  size_t size() const;

 private:
  // An answer, or the turn of a call that computes it.
  struct Entry {
    size_t request_hash = 0;
    bool done = false;
    std::string answer;
    mmu::MonotonicTime expires;
  };
  enum class Found : uint8_t { kMyTurn, kAnswer, kComputing };

  // The state of `id`; an answer is stored in `answer`. REQUEST_ID_REUSED.
  absl::StatusOr<Found> FindLocked(const std::string& id, size_t request_hash,
                                   std::string* answer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetOldLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AnswerTurn(const std::string& id, const std::string& answer,
                  bool* answered);
  void EndTurn(const std::string& id, const bool& answered);

  const Options options_;
  mutable mmu::Mutex mu_;  // leaf
  mmu::CondVar turn_over_;
  std::unordered_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
  // Finished entries, oldest first.
  std::deque<std::string> order_ ABSL_GUARDED_BY(mu_);
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace mmud

#endif  // SERVER_BASE_REQUEST_ID_CACHE_H_
