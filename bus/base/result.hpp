// result<T>: a T or the reason why there is none. It has std::expected's names, so that it can
// become an alias of it when the compiler brings one (g++ 12.2 does not).
//
// A result that is not looked at is a bug: the class is [[nodiscard]]. Reading the value of a
// failed result is a broken invariant and aborts.
#pragma once

#include "bus/base/check.hpp"
#include "bus/base/error_code.hpp"

#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>

namespace bus {

// Wraps an error so that `return unexpected(errc::gone);` becomes a failed result of any type.
class unexpected {
 public:
  explicit unexpected(std::error_code error) noexcept : error_(error) {}
  explicit unexpected(errc error) noexcept : error_(make_error_code(error)) {}
  [[nodiscard]] std::error_code error() const noexcept { return error_; }

 private:
  std::error_code error_;
};

template <class T>
class [[nodiscard]] result {
 public:
  using value_type = T;
  using error_type = std::error_code;

  template <class U = T>
  requires(std::is_constructible_v<T, U&&> && !std::is_same_v<std::remove_cvref_t<U>, result> &&
           !std::is_same_v<std::remove_cvref_t<U>, unexpected>) result(U&& value)
      : state_(std::in_place_index<0>, std::forward<U>(value)) {}
  result(unexpected failure) noexcept : state_(std::in_place_index<1>, failure.error()) {}

  [[nodiscard]] bool has_value() const noexcept { return state_.index() == 0; }
  [[nodiscard]] explicit operator bool() const noexcept { return has_value(); }

  [[nodiscard]] T& value() & noexcept { return checked(*this); }
  [[nodiscard]] const T& value() const& noexcept { return checked(*this); }
  [[nodiscard]] T&& value() && noexcept { return std::move(checked(*this)); }
  [[nodiscard]] T& operator*() & noexcept { return checked(*this); }
  [[nodiscard]] const T& operator*() const& noexcept { return checked(*this); }
  [[nodiscard]] T&& operator*() && noexcept { return std::move(checked(*this)); }
  [[nodiscard]] T* operator->() noexcept { return &checked(*this); }
  [[nodiscard]] const T* operator->() const noexcept { return &checked(*this); }

  // The reason; a default error_code when there is a value.
  [[nodiscard]] std::error_code error() const noexcept {
    const auto* failure = std::get_if<1>(&state_);
    return failure ? *failure : std::error_code{};
  }

  template <class U>
  [[nodiscard]] T value_or(U&& other) const& {
    return has_value() ? checked(*this) : static_cast<T>(std::forward<U>(other));
  }

 private:
  template <class Self>
  static auto& checked(Self& self) noexcept {
    auto* value = std::get_if<0>(&self.state_);
    BUS_CHECK(value != nullptr);
    return *value;
  }

  std::variant<T, std::error_code> state_;
};

template <>
class [[nodiscard]] result<void> {
 public:
  using value_type = void;
  using error_type = std::error_code;

  result() noexcept = default;
  result(unexpected failure) noexcept : error_(failure.error()) {}

  [[nodiscard]] bool has_value() const noexcept { return !error_; }
  [[nodiscard]] explicit operator bool() const noexcept { return has_value(); }
  void value() const noexcept { BUS_CHECK(has_value()); }
  [[nodiscard]] std::error_code error() const noexcept { return error_; }

 private:
  std::error_code error_;
};

}  // namespace bus
