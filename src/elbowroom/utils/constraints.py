"""What parameters may be, in scikit-learn's words: by its module, which is private, or by ours where that is gone."""

try:
    from sklearn.utils._param_validation import (
        HasMethods,
        Interval,
        InvalidParameterError,
        StrOptions,
        validate_parameter_constraints,
    )
except ImportError:
    from elbowroom.utils.plain_constraints import (
        HasMethods,
        Interval,
        InvalidParameterError,
        StrOptions,
        validate_parameter_constraints,
    )

__all__ = ["HasMethods", "Interval", "InvalidParameterError", "StrOptions", "validate_parameter_constraints"]
