// Runs a sequence of operations on a fresh VM and on its model, and shortens a
// sequence that finds a difference.

#ifndef TESTS_MODEL_RUN_OPERATIONS_H_
#define TESTS_MODEL_RUN_OPERATIONS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tests/model/model_config.h"
#include "tests/model/model_vm.h"
#include "tests/model/operation.h"

namespace mmu::testing {

// A value.
struct RunOptions {
  // All of the VM is compared with the model after so many operations, and at
  // the end. The result of an operation is compared at once in any case.
  size_t check_every = 1;
  Mistakes mistakes;
};

// A value.
struct Difference {
  std::string problem;
  size_t step = 0;  // the operation after which it was found
};

// Nullopt if the VM and the model agree.
std::optional<Difference> FindDifference(
    const std::vector<Operation>& operations, const ModelConfig& config,
    const RunOptions& options = {});

// The operations that RandomOperation makes of a seed.
std::vector<Operation> RandomOperations(uint64_t seed, size_t count,
                                        const ModelConfig& config);

// A sequence that also finds a difference, with as few operations and as small
// numbers as can be found in about `budget`. REQUIRES: `operations` find one.
std::vector<Operation> Minimise(std::vector<Operation> operations,
                                const ModelConfig& config,
                                const RunOptions& options,
                                absl::Duration budget);

// Runs the operations and compares after each of them. Returns "", or the
// difference, the step, and the operations up to it as C++ that can become a
// test.
std::string RunOperations(const std::vector<Operation>& operations,
                          const ModelConfig& config,
                          const RunOptions& options = {});

}  // namespace mmu::testing

#endif  // TESTS_MODEL_RUN_OPERATIONS_H_
