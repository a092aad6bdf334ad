// How an ageing treated the MMUs of a VM, as text.

#ifndef TESTS_INTEGRATION_AGED_MMUS_H_
#define TESTS_INTEGRATION_AGED_MMUS_H_

#include <string>

#include "mmud/v1/aging_service.pb.h"

namespace mmud::integration {

// MMU, coverage and lock: "TDP COVERED NONE, SHADOW SKIPPED UNSPECIFIED".
std::string MmusOf(const v1::AgeRangeResponse& response);

}  // namespace mmud::integration

#endif  // TESTS_INTEGRATION_AGED_MMUS_H_
