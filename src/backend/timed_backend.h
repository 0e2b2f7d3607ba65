// SPDX-License-Identifier: Apache-2.0
// The operations of another backend, each a span of its name (trace/span.h) that says what it does:
// rows, shapes, floating-point operations, bytes. Nothing else changes, no bit of a result and no
// order. On a device that works behind the host's back spans have the device's times.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace starattn {

std::unique_ptr<Backend> make_timed_backend(std::unique_ptr<Backend> backend);

}  // namespace starattn
