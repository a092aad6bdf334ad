// Remembers the answers of mutating calls by their request_id (AIP-155).

#ifndef SERVER_BASE_REQUEST_ID_CACHE_H_
#define SERVER_BASE_REQUEST_ID_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"

namespace mmud {

// OK for a UUID of version 4 in its usual form; INVALID_REQUEST_ID otherwise.
absl::Status CheckRequestId(absl::string_view request_id);

// The first call with an id computes the answer; calls with the same id and
// the same request get that answer for ten minutes, and wait for it while it
// is being computed. Only answers are kept: a call that fails, be it for its
// own deadline or because its caller left, fails alone. The next of those that
// waited for it, or else the next to come, is tried afresh. That is safe though
// a call that failed may have done a part of its work (a clear cancelled
// between two steps, a StartDirtyLog given up while it splits): what was done
// stays done, and doing it again changes nothing.
//
// Where it does not, since the work goes on without its call, the call's turn
// goes on as well (Turn): calls with the id wait for the end of the work, and
// get its answer.
//
// Of a request only a hash is kept. It merely tells whether an id was used for
// two different requests, which is a mistake of the caller: should the hashes
// of these be equal, too (1 in 2^64), it is not told of its mistake and gets
// the first answer. No answer is found by its hash. Thread-safe.
class RequestIdCache {
 public:
  struct Options {
    absl::Duration time_to_live = absl::Minutes(10);
    // More bytes than this push the oldest answers out. Counted are the answer
    // and kBytesPerEntry.
    size_t max_bytes = size_t{64} << 20;
    std::function<mmu::MonotonicTime()> now = [] {
      return mmu::MonotonicTime::Now();
    };
  };

  // What an answer costs besides its own bytes: its id, twice, and its place
  // in the containers.
  static constexpr size_t kBytesPerEntry = 384;

  RequestIdCache() : RequestIdCache(Options()) {}
  explicit RequestIdCache(Options options);

  // The right to compute the answer of one id. Ends without an answer when it
  // is destroyed; then the next call has it. Thread-safe. The cache outlives
  // it.
  class Turn {
   public:
    Turn(RequestIdCache& cache, std::string id)
        : cache_(cache), id_(std::move(id)) {}
    ~Turn() { cache_.EndTurn(id_, answered_); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    // The first answer counts.
    void Answer(const std::string& answer) {
      cache_.AnswerTurn(id_, answer, &answered_);
    }

   private:
    RequestIdCache& cache_;
    const std::string id_;
    bool answered_ = false;  // guarded by the cache's mu_
  };
  using SharedTurn = std::shared_ptr<Turn>;

  // `request` is everything that makes two requests the same, the method's
  // name included. An empty id just computes. `compute` is called on this
  // thread, at most once, while no other call with this id computes. A waiting
  // call looks at `keep_waiting` now and then, gives up when that returns an
  // error, and returns it. INVALID_REQUEST_ID; REQUEST_ID_REUSED if the id came
  // with another request.
  absl::StatusOr<std::string> Run(
      absl::string_view request_id, absl::string_view request,
      const std::function<absl::Status()>& keep_waiting,
      const std::function<absl::StatusOr<std::string>()>& compute);

  // The same for work that goes on when its call has given up: `compute` gets
  // the turn, null if the id is empty, and leaves it with the work, which gives
  // the answer that `compute` would have returned.
  absl::StatusOr<std::string> RunWithTurn(
      absl::string_view request_id, absl::string_view request,
      const std::function<absl::Status()>& keep_waiting,
      const std::function<absl::StatusOr<std::string>(SharedTurn)>& compute);

  size_t size() const;

 private:
  // Answered, or somebody's turn to compute.
  struct Entry {
    size_t request_hash = 0;
    bool done = false;
    std::string answer;
    mmu::MonotonicTime expires;
  };
  enum class Found : uint8_t { kMyTurn, kAnswer, kComputing };

  // What `id` says now; an answer goes to `answer`. REQUEST_ID_REUSED.
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
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
  // Finished entries, oldest first.
  std::deque<std::string> order_ ABSL_GUARDED_BY(mu_);
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace mmud

#endif  // SERVER_BASE_REQUEST_ID_CACHE_H_
