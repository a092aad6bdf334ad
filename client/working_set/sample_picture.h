// A picture as of a busy VM of 64 GiB, made up, for tests and for looking at
// the views.

#ifndef CLIENT_WORKING_SET_SAMPLE_PICTURE_H_
#define CLIENT_WORKING_SET_SAMPLE_PICTURE_H_

#include <string>

#include "client/working_set/picture.h"

namespace mmud::client {

// Two slots with 32,768 cells in all, eight generations, four windows and two
// hours of timeline. It is the same in each call. All of its numbers come from
// the same extents, except those of the timeline.
WorkingSetPicture SamplePicture(const std::string& vm);

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_SAMPLE_PICTURE_H_
