"""Parameter constraints of scikit-learn: from its private module, or from `plain_constraints` if it was removed."""

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
