"""The one error that users see."""


class XtalkError(Exception):
    """Bad input or an unusable state, in one line: what was seen, what was expected, what to do.

    The command line prints the message alone and exits with code 2.

    >>> try:
    ...     xtalk.activation_function("gloo")
    ... except xtalk.XtalkError as error:
    ...     print(error)  # doctest: +ELLIPSIS
    the model's MLPs use the activation function 'gloo'; supported are relu, gelu, ...; choose another model
    """
