/** The fewest characters of a password that central takes. */
export const PASSWORD_MIN = 10;
