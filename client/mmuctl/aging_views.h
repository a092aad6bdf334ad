// Generations and agers as text for people.

#ifndef CLIENT_MMUCTL_AGING_VIEWS_H_
#define CLIENT_MMUCTL_AGING_VIEWS_H_

#include <string>

#include "google/protobuf/repeated_field.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {

// "tdp covered (lock: none); stage2 skipped (add --may-lock)"; "" for no MMU.
std::string ViewMmus(
    const google::protobuf::RepeatedPtrField<v1::AgedMmu>& mmus);

std::string ViewGeneration(const v1::GenerationMetadata& metadata);

std::string ViewAger(const v1::Ager& ager);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_AGING_VIEWS_H_
