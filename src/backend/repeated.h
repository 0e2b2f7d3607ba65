// SPDX-License-Identifier: Apache-2.0
// Operations that come again and again, each time with other rows and places, such as the layers of
// one step after another.
#pragma once

#include <functional>

namespace starattn {

class Repeated {
 public:
  virtual ~Repeated() = default;

  // Calls operations(), which calls operations of the backend and nothing that waits for them or
  // copies beside them. A device may begin them together, once all are called.
  virtual void run(const std::function<void()>& operations) { operations(); }
};

}  // namespace starattn
